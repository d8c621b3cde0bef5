"""University of Mississippi Medical Center: 192 women with periodontitis, enrolled at 13 to 16 weeks."""

from flfed import Csv, Field, Holdout, Site

site = Site(
    name="mississippi-clinic",
    title="University of Mississippi Medical Center",
    dataset="preterm-birth",
    source=Csv("mississippi.csv"),
    mapping={
        # Questions answered Yes or No are flags as they stand.
        "Group": Field("Group", values={"C": "control", "T": "treatment"}),
        "Education": Field(
            "Education",
            values={"LT 8 yrs": "under-8-years", "8-12 yrs": "8-to-12-years", "MT 12 yrs": "over-12-years"},
        ),
        "Hypertension": Field("Hypertension", values={"N": "no", "Y": "yes"}),
        "BL.Diab.Type": Field("BL.Diab.Type", values={"Type I": "type-1", "Type II": "type-2"}),
        "delivery": Field("Preg.ended...37.wk", values={"No": "term", "Yes": "preterm"}),
    },
    holdout=Holdout(share=0.3, salt="mississippi-clinic-2026"),
)
