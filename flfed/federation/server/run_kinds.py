"""Kinds of run at the server: of a model, and of a statistic in its place."""

from __future__ import annotations

from flfed.federation.client.statistic import protection_of
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.rounds import site_sums
from flfed.federation.server.server import FederatedRun
from flfed.federation.server.sums.row_sums import StatisticSums
from flfed.rows.statistics.statistic import Statistic, added
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.summaries.summary import schema_encoder


class StatisticRun(FederatedRun):
    """One run without a model: sites are asked once for sums over their rows, and figures are made of these."""

    def conduct(self) -> Outcome:
        """Ask the sites for the sums of the study's statistic, record its figures, and return the outcome.

        There is no model: the outcome has no arrays, and no encoder was fitted to rows.
        """
        # A run that goes on asks the sites that had each other's keys: to others the sum would be another one.
        participants, _ = self.enrol_cohort()
        protection = protection_of(self.study)
        statistic = protection.statistic
        with self.privacy.during(participants):
            sums = site_sums(self.setting, self.parts).statistic(participants, statistic)
            self.privacy.answered(sums.sites)
            self.privacy.counted(protection.known_rows(sums.by_site, self.setting.schema))
        if sums.least:
            # One answer stands for all sites of the list, with the noise of each.
            statistic = protection.statistic_of_sum(sums.least, len(sums.sites))
        self._record(protection.name, statistic, sums)
        return Outcome(
            status="completed",
            reason="",
            arrays={},
            encoder=schema_encoder(self.layout),
            rounds=0,
            best_round=0,
            sites=sums.sites,
            seconds=self.writer.seconds(),
        )

    def _record(self, name: str, statistic: Statistic, sums: StatisticSums) -> None:
        """Record the figures of all sites, and of each that shares its own."""
        schema = self.setting.schema
        of_all = added(sums.parts)
        by_site = {site: statistic.figures([own], schema, of_all) for site, own in sums.by_site.items()}
        found = {
            "name": name,
            "sites": len(sums.sites),
            **statistic.figures(sums.parts, schema, of_all),
            "by-site": self.recorder.shared_as.own(by_site),
        }
        self.recorder.writer.summary("statistics", found, durable=False)


def run_class(study: Study) -> type[FederatedRun]:
    """Return the kind of a study's runs."""
    return StatisticRun if is_statistic(study) else FederatedRun
