"""Lending Club's borrowers in the Midwest of the USA, as one regional lender: 1,815 loans."""

from flfed import Csv, Field, Holdout, Site

site = Site(
    name="midwest-lender",
    title="Lender in the Midwest of the USA",
    dataset="loan-default",
    source=Csv("midwest.csv"),
    mapping={
        "term": Field("term", values={"term_36": "36", "term_60": "60"}),
        "loan_status": "Class",
    },
    holdout=Holdout(share=0.3, salt="midwest-lender-2026"),
)
