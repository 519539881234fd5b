"""An exhaustive search of the hand-off: every reachable state is safe, and every step is necessary.

The model runs `ring.handoff` itself: its table decides what migrators do, and its rules what shards allow. A
mutation removes one safety step. That must break an invariant; otherwise the model shows nothing.

Covered, exhaustively in each scope: kill, stop, take-over and waking at any step, lost requests and replies, an
unreachable target, an arbitrarily stale router, a goal that changes at any time, the purge of dead rows, and a
shard that crashes and loses commits that did not wait for the disk.
Not covered: a shard that loses data on its disk, and whether the SQL implements the rules.
"""

from __future__ import annotations

import pytest

from ring.handoff import RELAXED, TABLE, Desired, SourceState, Step, TargetState, next_steps
from tests.model import moves
from tests.model.mutation import NONE, Mutation, without
from tests.model.search import Broken, Found, search, stuck
from tests.model.world import CACHED, CONSEQUENCES, CRASHED, CRASHING, HAND_OFF, RETARGETED, Scope

TWO_SERVE = "two shards serve the slot"
OLD_SERVED = "serves 0, but the last commit was 1"
EARLIER_SERVED = "serves 1, but the last commit was 2"
NOT_VERIFIED = "an attempt that nobody disturbed does not verify"


def first_violation(scope: Scope, mutation: Mutation) -> str:
    """Returns the first line of the search's report, which names the broken invariant."""
    with pytest.raises(Broken) as caught:
        search(scope, mutation)
    return str(caught.value).partition(";")[0]


def whole(scope: Scope) -> Found:
    """Returns all worlds reachable without a mutation; the search checks the invariants of each."""
    found = search(scope, NONE)
    blocked = stuck(found)
    assert not blocked, f"cannot finish after\n{found.path(blocked[0])}\nin {found.worlds[blocked[0]]}"
    return found


@pytest.mark.parametrize(
    ("scope", "least"),
    [
        pytest.param(HAND_OFF, 100_000, id="there and back, two migrators"),
        pytest.param(RETARGETED, 100_000, id="a third shard, two migrators"),
        pytest.param(CACHED, 100_000, id="there and back, with the cache"),
        pytest.param(CRASHING, 15_000, id="there and back, two crashes of shards"),
        pytest.param(CRASHED, 50_000, id="there and back, two migrators, a crash of a shard"),
    ],
)
def test_every_reachable_state_is_safe_and_can_finish(scope: Scope, least: int) -> None:
    """Wherever migrators are killed, stopped and woken, the invariants hold and a new one can finish."""
    found = whole(scope)
    assert len(found.worlds) > least, "the model has become so small that it shows little"


def test_the_model_uses_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search reaches each pair of states in the table, except two that only an old plan leads to."""
    met: set[tuple[SourceState, TargetState]] = set()

    def noting(goal: Desired, source: SourceState, target: TargetState) -> tuple[Step, ...]:
        met.add((source, target))
        return next_steps(goal, source, target)

    monkeypatch.setattr(moves, "next_steps", noting)
    moves.refused_pair.cache_clear()
    search(Scope(goals=(1, 2), versions=0), NONE)
    search(Scope(goals=(1, 0), versions=1), NONE)
    old_plans = {(SourceState.ELSEWHERE, TargetState.OWNER), (SourceState.ELSEWHERE, TargetState.BEHIND)}
    assert TABLE.keys() - met == old_plans


# -- the safety steps: without any one of them, something breaks --


def test_without_the_drain_a_write_is_lost() -> None:
    """If FREEZE does not wait for writers, one commits after the last copy and is lost."""
    assert first_violation(HAND_OFF, Mutation(drain=False)) == NOT_VERIFIED
    assert OLD_SERVED in first_violation(CONSEQUENCES, Mutation(drain=False))


def test_without_tokens_two_shards_serve() -> None:
    """If tokens are not compared, a migrator that wakes up damages its successor's work."""
    assert first_violation(CONSEQUENCES, Mutation(tokens=False)) == TWO_SERVE


def test_without_verify_rows_are_lost() -> None:
    """If the copy is not verified, a successor hands over a copy that was never completed."""
    assert OLD_SERVED in first_violation(HAND_OFF, without(Step.VERIFY))


def test_what_another_has_checked_is_verified_again() -> None:
    """If a successor skips what its predecessor may have checked, an unfinished copy is handed over."""
    assert EARLIER_SERVED in first_violation(HAND_OFF, Mutation(own_check=False))


def test_what_was_written_since_the_check_is_verified() -> None:
    """If VERIFY skips rows that were written since CHECK, it does not notice that they were not copied."""
    missing = frozenset({Step.CATCH_UP})
    assert EARLIER_SERVED in first_violation(CONSEQUENCES, Mutation(without=missing, looks_again=False))


def test_without_close_two_shards_serve() -> None:
    """If the source is not closed before the decision, both shards answer reads."""
    assert first_violation(HAND_OFF, without(Step.CLOSE)) == TWO_SERVE


def test_without_the_purge_old_rows_come_back() -> None:
    """If the target is not purged, rows of an earlier stay reappear, and no such attempt verifies."""
    assert first_violation(HAND_OFF, without(Step.PURGE)) == NOT_VERIFIED


def test_without_versions_the_cache_goes_back() -> None:
    """If the cache accepts any value, a slow reader replaces an acknowledged value by an older one."""
    found = first_violation(CACHED, Mutation(versions=False))
    assert found == "the cache is older than what was acknowledged"


def test_without_retract_two_shards_serve() -> None:
    """If an abort restores the source before it retracts the target's import, a commit may follow."""
    assert first_violation(HAND_OFF, without(Step.RETRACT)) == TWO_SERVE


def test_without_comparing_the_claimed_row_two_shards_serve() -> None:
    """If CLAIM does not compare the row with the observed one, it may restore a source closed meanwhile."""
    assert first_violation(HAND_OFF, Mutation(claims_compare=False)) == TWO_SERVE


def test_without_epochs_an_old_plan_is_carried_out() -> None:
    """If epochs are not compared, a migrator with a plan from an earlier stay begins an invalid move."""
    assert first_violation(HAND_OFF, Mutation(epochs=False)).endswith("no hand-off leads there")


def test_without_the_check_of_the_cleaner_live_rows_go() -> None:
    """If CLEAN does not check the row again, it deletes rows of a slot that has returned."""
    assert OLD_SERVED in first_violation(CONSEQUENCES, Mutation(clean_checks=False))


def test_dead_rows_must_stay_during_a_hand_off() -> None:
    """If dead rows are purged on a leaving source, the copies differ: a purged row leaves no trace."""
    assert first_violation(HAND_OFF, Mutation(purge_checks=False)) == NOT_VERIFIED


@pytest.mark.parametrize(
    ("step", "broken"),
    [
        (Step.CLOSE, TWO_SERVE),
        (Step.COMMIT, "the migrator finds nothing to do, yet it is not finished"),
        (Step.RELEASE, "source leaving, target behind: no hand-off leads there"),
    ],
)
def test_some_steps_must_wait_for_the_disk(step: Step, broken: str) -> None:
    """If a crash can undo what the next step relies on, two shards serve the slot, or none, or it never moves."""
    assert first_violation(CRASHING, Mutation(relaxed=RELAXED | {step})) == broken


@pytest.mark.parametrize("step", [Step.COPY, Step.CATCH_UP])
def test_without_copying_nothing_verifies(step: Step) -> None:
    """COPY and CATCH_UP are both needed for the target to become equal."""
    assert first_violation(HAND_OFF, without(step)) == NOT_VERIFIED


def test_commit_comes_before_release() -> None:
    """If the source is released before the decision, the slot has no owner."""
    found = first_violation(HAND_OFF, without(Step.COMMIT))
    assert found == "source released, target importing: no hand-off leads there"


@pytest.mark.parametrize(
    "step",
    [
        Step.LEAVE,
        Step.CLAIM,
        Step.IMPORT,
        Step.ADOPT,
        Step.FREEZE,
        Step.RELEASE,
        Step.RESTORE,
        Step.CLEAN,
    ],
)
def test_without_the_other_steps_nothing_finishes(step: Step) -> None:
    """Without one of the remaining steps nothing breaks, but some state can no longer be finished."""
    assert stuck(search(Scope(goals=(1, 0), versions=1), without(step)))
