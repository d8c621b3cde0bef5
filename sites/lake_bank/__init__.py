"""Lake Bank: an issuing bank that does not exist, with the simulated payments of its 280 customers."""

from flfed import Csv, HoldoutByTime, Site

site = Site(
    name="lake-bank",
    title="Lake Bank (simulated)",
    dataset="card-fraud",
    source=Csv("lake-bank.csv.gz"),
    holdout=HoldoutByTime(
        "time",
        train_from="2026-04-07",
        train_until="2026-04-28",
        gap_days=7,  # labels of the last week are not known at the cut
        test_from="2026-04-28",
        test_until="2026-05-05",
        same_groups=True,  # customers go on paying
    ),
)
