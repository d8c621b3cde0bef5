"""What a person decided stays: refusals, for which coordinator it was approved, and who opted out."""

from flfed.deployment.gate.study_policy import StudyAdmission
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.freeze import refresh
from flfed.rows.data.policy import Policy


def test_a_study_that_was_refused_stays_so_with_a_comment_more_where_nobody_needs_to_approve(gated):
    site = gated(policy=Policy(disclosure="open", resplit=True, approval="none"), approved=False)
    assert site.refusal(site.trained()) is None
    approval.refuse(site.folder, site.study, by="Dr Kim")
    other = site.study.text + "# once more\n"
    said = "study 'small' was changed since it was decided about here: it needs a new approval"
    assert [site.refusal(site.trained(), study=text) for text in (site.study.text, other)][1] == said
    assert site.refusal(site.trained()).startswith("the study was refused here on")


def test_an_approval_holds_for_the_coordinator_that_the_site_had_joined(gated):
    site = gated(approved=False)
    site.folder.make()
    site.folder.terms.write_text('coordinator = "Heart consortium"\n')
    site.folder.terms.chmod(0o640)
    site.approve(coordinator="Heart consortium")
    assert site.refusal(site.trained()) is None
    site.folder.terms.write_text('coordinator = "Lung consortium"\n')
    assert site.refusal(site.trained()) == "the study was approved for another coordinator: it needs a new approval"
    site.folder.terms.chmod(0o666)
    assert "another coordinator" in site.refusal(site.trained())


def test_people_who_opt_out_after_the_freezing_stop_the_answers_until_the_rows_are_frozen_again(gated):
    site = gated()
    assert site.refusal(site.trained()) is None
    site.folder.excluded.write_text("person\nP0-0003\n")
    site.folder.excluded.chmod(0o600)
    said = (
        "its list of people who opted out changed after the rows were frozen; at the site: flfed site refresh site-01"
    )
    assert site.refusal(site.trained()) == said
    admission = StudyAdmission(site.folder, site.site, today=lambda: site.today)
    assert admission.standing(site.approve()) == said
    refresh(site.folder, site.site).write()
    assert (
        site.refusal(site.trained())
        == "its frozen rows changed after the approval; for a new one, at the site: flfed site approve STUDY"
    )
    site.approve()
    assert site.refusal(site.trained()) is None
