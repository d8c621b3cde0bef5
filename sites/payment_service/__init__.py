"""Payment service: payments and delays of 30,000 credit card clients, without the outcome."""

from flfed import Csv, Site

# The bank has these, and the outcome.
ELSEWHERE = (
    *("LIMIT_BAL", "BILL_AMT1", "BILL_AMT2", "BILL_AMT3", "BILL_AMT4", "BILL_AMT5", "BILL_AMT6"),
    "default.payment.next.month",
)

site = Site(
    name="payment-service",
    title="Payment service (columns of a public table)",
    dataset="taiwan-credit-parties",
    source=Csv("UCI_Credit_Card.csv"),
    mapping=dict.fromkeys(ELSEWHERE),
    holds="columns",
)
