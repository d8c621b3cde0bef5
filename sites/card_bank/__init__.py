"""Bank: limit, bills and defaults of 30,000 credit card clients."""

from flfed import Csv, Holdout, Site

# The payment service has these, in a file of its own.
ELSEWHERE = (
    *("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),
    *("PAY_AMT1", "PAY_AMT2", "PAY_AMT3", "PAY_AMT4", "PAY_AMT5", "PAY_AMT6"),
)

site = Site(
    name="card-bank",
    title="Bank (columns of a public table)",
    dataset="taiwan-credit-parties",
    source=Csv("UCI_Credit_Card.csv"),
    mapping=dict.fromkeys(ELSEWHERE),
    holdout=Holdout(share=0.3, salt="card-bank-2026"),
    partial=True,
)
