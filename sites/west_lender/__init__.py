"""Lending Club's borrowers in the West of the USA, as one regional lender: 2,446 loans."""

from flfed import Csv, Field, Holdout, Site

site = Site(
    name="west-lender",
    title="Lender in the West of the USA",
    dataset="loan-default",
    source=Csv("west.csv"),
    mapping={
        "term": Field("term", values={"term_36": "36", "term_60": "60"}),
        "loan_status": "Class",
    },
    holdout=Holdout(share=0.3, salt="west-lender-2026"),
)
