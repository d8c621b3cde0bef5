"""Lending Club's borrowers in the Northeast of the USA, as one regional lender: 1,925 loans."""

from flfed import Csv, Field, Holdout, Site

site = Site(
    name="northeast-lender",
    title="Lender in the Northeast of the USA",
    dataset="loan-default",
    source=Csv("northeast.csv"),
    mapping={
        "term": Field("term", values={"term_36": "36", "term_60": "60"}),
        "loan_status": "Class",
    },
    holdout=Holdout(share=0.3, salt="northeast-lender-2026"),
)
