"""What a reader types into the site's search, and the page that answers it: written before the search was tried."""

SEARCHED = {
    "glossary": "glossary.html",
    "damaged tables": "damaged-tables.html",
    "join as a site": "join-as-a-site.html",
    "policy file": "reference/policy.html",
    "schema": "reference/schema.html",
    "exclusions": "reference/exclusions.html",
    "study file": "reference/study.html",
    "commands": "reference/commands.html",
    "HoldoutByTime": "reference/python/HoldoutByTime.html",
    "layered_outputs": "reference/python/layered_outputs.html",
    "run store": "run-store.html",
    "secure aggregation": "secure-sums.html",
    "messages": "messages.html",
    "boosted trees": "boosted-trees.html",
    "predictions": "predict.html",
    "performance": "performance.html",
    "limits": "limits.html",
    "methods": "methods.html",
    "extend": "extend.html",
    "install": "install.html",
    "own tables": "own-tables.html",
    "cost of privacy": "privacy-utility.html",
    "consortium": "run-a-consortium.html",
    "joins late": "late-hospital.html",
    "heart disease": "case-studies/heart-disease.html",
    "influenza": "case-studies/influenza.html",
}


HELD_OUT = {
    # a site's operator: IT or data officer
    "open firewall port": "security.html",
    "excel workbook": "damaged-tables.html",
    "decimal comma": "damaged-tables.html",
    "missing values": "own-tables.html",
    "patient opted out": "join-as-a-site.html",
    "approve a study": "join-as-a-site.html",
    "smallest group count": "reference/policy.html",
    "password of the database": "reference/site.html",
    # a coordinator
    "invite a hospital": "run-a-consortium.html",
    "certificate expired": "run-a-consortium.html",
    "dry run": "run-a-consortium.html",
    "postgres": "run-store.html",
    "backup of runs": "run-store.html",
    "new hospital joins later": "late-hospital.html",
    "homomorphic encryption": "secure-sums.html",
    "colluding sites": "secure-sums.html",
    # an analyst, a clinician
    "onnx export": "predict.html",
    "score new patients": "predict.html",
    "forest plot": "app.html",
    "what does AUC mean": "glossary.html",
    "use from R": "r.html",
    "own pytorch network": "tutorials/own-model.html",
    "credit card fraud": "case-studies/card-fraud.html",
    "xgboost": "boosted-trees.html",
    # a researcher, a risk officer
    "custom strategy": "extend.html",
    "fedprox versus fedavg": "methods.html",
    "benchmark": "performance.html",
    "choose epsilon": "privacy.html",
    "membership inference": "privacy.html",
    "learning rate": "reference/study.html",
}
"""Thirty more for four readers, written from headings alone before any was searched or the search was changed."""
