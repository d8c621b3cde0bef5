"""Lending Club's borrowers in the South of the USA, as one regional lender: 3,671 loans."""

from flfed import Csv, Field, Holdout, Site

site = Site(
    name="south-lender",
    title="Lender in the South of the USA",
    dataset="loan-default",
    source=Csv("south.csv"),
    mapping={
        "term": Field("term", values={"term_36": "36", "term_60": "60"}),
        "loan_status": "Class",
    },
    holdout=Holdout(share=0.3, salt="south-lender-2026"),
)
