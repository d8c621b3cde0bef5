"""A site's one answer to an analysis: charged before its noise is drawn, kept, and sent again as it was."""

from __future__ import annotations

import hmac
import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flfed.federation.client.protection import Charge, RoundCharge, charge_of
from flfed.federation.client.secure_sums import SiteSums
from flfed.files import locked, read_private, write_whole
from flfed.paths import private_folder
from flfed.rows.session import SiteSession
from flfed.rows.statistics.private.analysis import ANSWER, NoisedAnalysis
from flfed.rows.statistics.private.gaussian import GaussianQuery
from flfed.rows.statistics.statistic import Statistic, statistic_of
from flfed.rows.training.private.noise import SystemNoise
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.accounting import epsilon

FOLDER, PURPOSE = "answers", "analysis"
SALT, HASH = 16, 32
"""Bytes before an answer in its file: a salt, and with it the hash of the exact numbers."""


def asked_statistic(study: Study) -> Statistic:
    """Return a study's statistic, or its analysis with the noise that the study's mechanism asks for."""
    return statistic_of(study) if study.analysis is None else asked_analysis(study)


def asked_analysis(study: Study) -> NoisedAnalysis:
    """Return a study's analysis with the noise that the study's mechanism asks for."""
    charge = charge_of(study)
    return NoisedAnalysis.of_study(study, math.nan if charge is None else charge.release.noise)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answering:
    """What a site answers to an analysis, before and after its noise.

    Attributes
    ----------
    session : SiteSession
    exact : float64 array [entries]
        Which does not leave.
    least : int
        Fewest sites of a secure sum that the answer is for; 0 where it leaves by itself.
    sites : int
        That are pinned for such a sum.
    """

    session: SiteSession
    exact: np.ndarray
    least: int = 0
    sites: int = 0

    @property
    def query(self) -> GaussianQuery:
        """The mechanism by which the site noises its answer."""
        return noise_of_sum(asked_analysis(self.session.study), self.least).query(self.session.schema)

    @property
    def charge(self) -> RoundCharge | None:
        """What an answer costs; None of research sites, which have no ledger."""
        spend = None if self.session.protection is None else self.session.protection.spend
        return spend if isinstance(spend, RoundCharge) else None

    def path(self, charge: RoundCharge) -> Path:
        """Return the file of the answer to this very text, beside the site's ledger."""
        return charge.spending.folder / FOLDER / f"{self._name()}{self.least}"

    def was_given(self, charge: RoundCharge) -> bool:
        """Tell whether an answer was given over these rows, by itself or for some sum."""
        folder = charge.spending.folder / FOLDER
        return any(self._read(path) is not None for path in folder.glob(f"{self._name()}*"))

    def _name(self) -> str:
        return f"{self.session.study.sha256()}-{self.session.seed}-"

    def _read(self, path: Path) -> np.ndarray | None:
        """Return the answer that a file has of these rows, None where there is none."""
        try:
            found = read_private(path, rows=True)
        except FileNotFoundError:
            return None
        salt, of_exact, answer = found[:SALT], found[SALT : SALT + HASH], found[SALT + HASH :]
        # Of other rows, or damaged: it is drawn, and charged, anew.
        same = hmac.compare_digest(of_exact, _hash(salt, self.exact)) and len(answer) == self.exact.nbytes
        return np.frombuffer(answer, dtype="<f8").astype(np.float64) if same else None

    def answer(self) -> np.ndarray:
        """Return the noised numbers; raises NotSpent where the site's account does not allow it."""
        charge, session = self.charge, self.session
        if charge is None:
            # Of a cut of one table the noise follows from the seed, as do its sites.
            rng = generator(session.seed, site=session.site.name, purpose=PURPOSE)
            chance = SystemNoise() if session.protection is None else session.protection.chance(rng)
            return self.query.answer(self.exact, chance)
        folder = self.path(charge).parent
        private_folder(folder)
        # Of two that ask at once the second gets the first one's answer.
        with locked(folder):
            before = self._read(self.path(charge))
            if before is not None:
                return before
            charge(0, **self._facts(charge))
            found = self.query.answer(self.exact, SystemNoise())
            salt = secrets.token_bytes(SALT)
            write_whole(self.path(charge), salt + _hash(salt, self.exact) + found.astype("<f8").tobytes())
            return found

    def _facts(self, charge: RoundCharge) -> dict[str, Any]:
        """Return what the ledger's line says of a secure sum: its fewest sites, and ε if a third of them collude."""
        if not self.least:
            return {}
        return {
            "least_sites": self.least,
            "epsilon_colluding": colluding_epsilon(charge.charge, self.least, self.sites),
        }


def noise_of_sum(analysis: NoisedAnalysis, least: int) -> NoisedAnalysis:
    """Return an analysis with a site's own part of the noise: that of all but one of `least` sites is enough.

    The one may be a site that tells the coordinator its part.
    """
    return analysis if not least else replace(analysis, noise=analysis.noise / math.sqrt(least - 1))


def colluding_epsilon(charge: Charge, least: int, sites: int) -> float:
    """Return the ε of an answer in a sum of at least `least` of `sites`, of which a third tell their noise."""
    left = math.sqrt((least - sites // 3) / (least - 1))
    return epsilon([replace(charge.release, noise=charge.release.noise * left)], charge.delta)


def answering(session: SiteSession, sums: SiteSums | None = None) -> Answering:
    """Return what a site has to answer to its session's study, an analysis, by itself or in a secure sum."""
    exact = np.asarray(asked_analysis(session.study).sums(all_rows(session), session.schema)[ANSWER])
    if sums is None:
        return Answering(session=session, exact=exact)
    sites = len(sums.cohort().sites if sums.keys.approval is None else sums.keys.approval.pinned)
    return Answering(session=session, exact=exact, least=sums.least(), sites=sites)


def all_rows(session: SiteSession) -> pd.DataFrame:
    """Return all rows: nothing is trained and nothing is judged, and the holdout is no other than the rest."""
    return pd.concat([session.table.training, session.table.holdout("statistic")], ignore_index=True)


def noised_sums(session: SiteSession, sums: SiteSums | None) -> dict[str, np.ndarray]:
    """Return the noised numbers of a site's rows; raises NotSpent where its account does not allow it."""
    return {ANSWER: answering(session, sums).answer()}


def is_answered(session: SiteSession) -> bool:
    """Tell whether a site has answered this very analysis over the same rows: to send it again costs nothing."""
    if session.study.analysis is None:
        return False
    asked = answering(session)
    return asked.charge is not None and asked.was_given(asked.charge)


def account_of(session: SiteSession) -> tuple[float, float]:
    """Return a site's budget of ε and what is spent of it, NaN where a study spends nothing.

    Raises
    ------
    NotSpent
        If there is no room for one round: it keeps the site out from the start.
    """
    spend = None if session.protection is None else session.protection.spend
    if not isinstance(spend, RoundCharge):
        return math.nan, math.nan
    return spend.figures(free=is_answered(session))


def _hash(salt: bytes, exact: np.ndarray) -> bytes:
    return hmac.digest(salt, exact.astype("<f8").tobytes(), "sha256")
