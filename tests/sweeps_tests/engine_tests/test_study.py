"""Studies are kept in databases (`open_study`) where a store is asked to hold what is told; what a
sweep makes of its space needs none."""

import optuna
import pytest
from optuna.trial import TrialState
from tests_support.fake_sweep import new_study, open_sweep, plan, settle, space
from tests_support.machines import gpu_capacity

from sweeps.engine.outcomes import TrialRecord
from sweeps.engine.study import DUPLICATES_UNTIL_EXHAUSTED, SweepStudy
from sweeps.engine.study_records import read_records

POINT = {"optimizer.lr": 5e-3, "optimizer.momentum": 0.9}


def states(study):
    return [trial.state for trial in study.get_trials()]


def test_finished_is_complete_with_its_best_value(open_study):
    study = open_study()
    sweep = open_sweep(study)
    settle(sweep, sweep.next(), "finished", curve={10: 1.4, 20: 1.6})
    (trial,) = study.get_trials()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 1.4)


def test_stopped_is_pruned_with_its_values_at_their_steps(open_study):
    study = open_study()
    sweep = open_sweep(study)
    settle(sweep, sweep.next(), "stopped", curve={10: 1.9, 20: 1.8})
    (trial,) = study.get_trials()
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {10: 1.9, 20: 1.8}
    assert trial.constraints == {}


@pytest.mark.parametrize("outcome", ["diverged", "out_of_memory"])
def test_what_cannot_be_trained_is_pruned_and_infeasible(open_study, outcome):
    study = open_study()
    sweep = open_sweep(study)
    settle(sweep, sweep.next(), outcome)
    (trial,) = study.get_trials()
    assert (trial.state, trial.constraints) == (TrialState.PRUNED, {outcome: 1.0})


def test_failed_is_fail_and_counts_toward_the_trials(open_study):
    study = open_study()
    sweep = open_sweep(study, trials=1)
    settle(sweep, sweep.next(), "failed")
    assert states(study) == [TrialState.FAIL]
    assert sweep.next() is None


def test_a_step_told_twice_keeps_its_first_value(open_study):
    study = open_study()
    sweep = open_sweep(study)
    suggestion = sweep.next()
    sweep.report(suggestion.fingerprint, step=10, value=1.5)
    sweep.report(suggestion.fingerprint, step=10, value=1.5)
    settle(sweep, suggestion, "finished", curve={10: 1.5})
    assert study.get_trials()[0].intermediate_values == {10: 1.5}


def test_a_report_reads_nothing_back(tmp_path, monkeypatch):
    """It would read the whole trial again, at every report: the driver waits for that."""
    sweep = open_sweep(optuna.create_study(storage=f"sqlite:///{tmp_path / 'optuna.db'}"))
    suggestion = sweep.next()
    read = []
    monkeypatch.setattr(optuna.storages.RDBStorage, "get_trial", lambda *a: read.append(a))
    for step in (10, 20, 20):
        sweep.report(suggestion.fingerprint, step=step, value=1.0)
    assert read == []


def test_known_points_come_first_and_count():
    sweep = open_sweep(trials=2, known_points=[POINT])
    assert sweep.next().fields == POINT
    assert sweep.next().fields != POINT
    assert sweep.next() is None


def test_known_points_are_not_tried_again_after_a_restart(open_study):
    first = open_sweep(open_study(), trials=2, known_points=[POINT])
    settle(first, first.next(), "finished", curve={10: 1.0})
    again = open_sweep(open_study(), trials=2, known_points=[POINT])
    assert again.next().fields != POINT


def test_an_interrupted_trial_is_the_first_to_be_taken_up(open_study):
    first = open_sweep(open_study())
    settle(first, first.next(), "finished", curve={10: 1.0})
    left = settle(first, first.next(), "interrupted", curve={10: 1.2})
    study = open_study()
    again = open_sweep(study)
    assert again.next() == left
    settle(again, left, "finished", curve={10: 1.2, 20: 1.1})
    assert states(study) == [TrialState.COMPLETE] * 2


def test_a_trial_left_before_it_was_named_is_taken_up_too(open_study):
    killed = open_study()
    open_sweep(killed)
    killed.ask()  # and then the driver was killed
    study = open_study()
    sweep = open_sweep(study, trials=1)
    settle(sweep, sweep.next(), "finished", curve={10: 1.0})
    assert states(study) == [TrialState.COMPLETE]
    assert sweep.next() is None


def test_the_same_seed_proposes_the_same_trials_in_every_store_and_across_a_restart(open_study):
    def proposals(open_named, *, restart_after):
        name = f"restarted after {restart_after}"
        sweep = open_sweep(open_named(name), trials=10)
        made = []
        while (suggestion := sweep.next()) is not None:
            made.append(suggestion.fields)
            rate = suggestion.fields["optimizer.lr"]
            settle(sweep, suggestion, "finished", curve={10: abs(rate - 1e-2)})
            if len(made) == restart_after:
                sweep = open_sweep(open_named(name), trials=10)
        return made

    undisturbed = proposals(lambda name: new_study(), restart_after=None)
    assert len(undisturbed) == 10
    assert proposals(open_study, restart_after=3) == undisturbed
    assert proposals(open_study, restart_after=8) == undisturbed  # TPE is at work by then


def test_another_seed_proposes_other_trials():
    first = [open_sweep(seed=seed).next().fields for seed in (0, 1)]
    assert first[0] != first[1]


def test_the_sampler_learns_to_stay_away_from_what_diverges():
    def share_of_diverged(outcome):
        sweep = open_sweep(trials=60)
        rates = []
        while (suggestion := sweep.next()) is not None:
            rate = suggestion.fields["optimizer.lr"]
            rates.append(rate)
            if rate > 1e-3:  # two thirds of the space, in its own scale
                settle(sweep, suggestion, outcome)
            else:
                settle(sweep, suggestion, "finished", curve={10: 2.0 - 100 * rate})
        return sum(rate > 1e-3 for rate in rates[-30:]) / 30

    # The best value lies at the edge of the bad region, so that some draws fall into it.
    assert share_of_diverged("diverged") <= 0.6
    assert share_of_diverged("diverged") < share_of_diverged("failed")


def one_of_two(trial):
    return {"optimizer.momentum": trial.suggest_categorical("optimizer.momentum", [0.8, 0.9])}


def test_an_exhausted_space_ends_the_sweep(caplog):
    study = new_study()
    sweep = open_sweep(study, trials=10, space=one_of_two)
    made = []
    while (suggestion := sweep.next()) is not None:
        made.append(settle(sweep, suggestion, "finished", curve={10: 1.0}).fields)
    assert sorted(fields["optimizer.momentum"] for fields in made) == [0.8, 0.9]
    assert f"{DUPLICATES_UNTIL_EXHAUSTED} suggestions in a row" in caplog.text
    assert set(states(study)) == {TrialState.COMPLETE}
    assert len(read_records(study)) == 2


def test_a_trial_of_another_sweep_is_taken_over_and_not_trained():
    other = {}

    def find(fingerprint):
        return TrialRecord(fingerprint=fingerprint, outcome="finished", value=1.1, step=9, **other)

    other["taken_over_from"] = "older"
    study = new_study()
    sweep = SweepStudy(study, plan(trials=3), find_finished=find)
    assert sweep.next() is None
    taken = sweep.take_untrained()
    assert [each.taken_over_from for each in taken] == ["older"] * 3
    assert states(study) == [TrialState.COMPLETE] * 3


def test_a_configuration_that_cannot_be_built_is_recorded_and_the_sweep_goes_on():
    def some_bad(trial):
        kernel = trial.suggest_categorical("model.kernel_size", [7, 8])
        return {"model.kernel_size": kernel, **one_of_two(trial)}

    sweep = open_sweep(trials=4, space=some_bad)
    good = []
    while (suggestion := sweep.next()) is not None:
        good.append(settle(sweep, suggestion, "finished", curve={10: 1.0}))
    refused = [record for record in sweep.settled() if record.outcome == "failed"]
    assert len(good) + len(refused) == 4
    assert refused[0].error == "model.kernel_size=8; must be odd and from 1 to 4095"


def test_records_show_running_trials_as_interrupted_with_their_curve_so_far(open_study):
    study = open_study()
    sweep = open_sweep(study)
    suggestion = sweep.next()
    sweep.report(suggestion.fingerprint, step=10, value=1.3)
    sweep.report(suggestion.fingerprint, step=20, value=1.4)
    (record,) = read_records(study)
    assert (record.outcome, record.step) == ("interrupted", 20)
    assert (record.value, record.last_value) == (1.3, 1.4)


def test_an_interrupted_trial_keeps_what_is_known_of_it(open_study):
    study = open_study()
    sweep = open_sweep(study)
    suggestion = sweep.next()
    sweep.report(suggestion.fingerprint, step=10, value=1.3)
    interrupted = TrialRecord(
        fingerprint=suggestion.fingerprint, outcome="interrupted", seconds=7.0, parameters=5
    )
    sweep.settle(interrupted)
    (record,) = read_records(study)
    assert (record.step, record.seconds, record.parameters) == (10, 7.0, 5)


def test_a_resumed_trial_that_needs_no_training_does_not_keep_the_others_back(open_study):
    first = open_sweep(open_study(), trials=4)
    done, left = first.next(), first.next()  # and then the driver was killed

    def find(fingerprint):  # another sweep finished one of them meanwhile
        known = TrialRecord(fingerprint=fingerprint, outcome="finished", value=1.1)
        return known if fingerprint == done.fingerprint else None

    again = SweepStudy(open_study(), plan(trials=4), find_finished=find)
    assert again.next() == left
    assert [record.fingerprint for record in again.take_untrained()] == [done.fingerprint]
    assert again.next() is not None


def test_what_a_killed_driver_recorded_and_did_not_tell_is_told(open_study):
    killed = open_study()
    first = open_sweep(killed, trials=1)
    record = TrialRecord(fingerprint=first.next().fingerprint, outcome="finished", value=1.2)
    (trial,) = killed.get_trials()
    killed._storage.set_trial_user_attr(trial._trial_id, "record", record.to_json())  # and the kill
    study = open_study()
    assert open_sweep(study, trials=1).next() is None
    (trial,) = study.get_trials()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 1.2)


def test_all_that_ended_is_read_back_and_nothing_is_left_running(open_study):
    sweep = open_sweep(open_study(), trials=6)
    outcomes = ["finished", "stopped", "diverged", "out_of_memory", "failed", "finished"]
    for number, outcome in enumerate(outcomes):
        curve = {10: 1.5 + number / 3, 20: float("inf") if outcome == "diverged" else 0.1 + 0.2}
        settle(sweep, sweep.next(), outcome, curve=curve)
    ended = open_study()
    assert TrialState.RUNNING not in states(ended)
    assert read_records(ended) == sweep.settled()
    again = open_sweep(ended, trials=6)
    assert [record.outcome for record in again.settled()] == outcomes
    assert list(again.curves()) == list(sweep.curves())
    assert again.next() is None


def test_a_verdict_of_the_scheduler_is_known_to_the_next_driver(open_study):
    sweep = open_sweep(open_study())
    stopped = sweep.next().fingerprint
    sweep.next()
    sweep.keep_stop(stopped, step=20)
    sweep.report(stopped, step=20, value=1.5)  # and then the driver was killed
    again = open_sweep(open_study())
    assert again.stops() == {stopped: 20}
    assert dict(again.curves())[stopped] == {20: 1.5}


def test_restarts_of_a_worker_are_counted_across_drivers(open_study):
    sweep = open_sweep(open_study())
    name = sweep.next().fingerprint
    sweep.keep_restarts(name, sweep.restarts(name) + 2)
    again = open_sweep(open_study())
    assert again.next().fingerprint == name
    assert again.restarts(name) == 2


def test_what_cannot_fit_is_out_of_memory_before_it_begins_and_infeasible():
    def find_misfit(config):
        return "too wide" if config.optimizer.momentum > 0.7 else ""

    study = new_study()
    sweep = open_sweep(study, trials=6, find_misfit=find_misfit)
    begun = []
    while (suggestion := sweep.next()) is not None:
        begun.append(settle(sweep, suggestion, "finished", curve={10: 1.0}))
    left_out = [record for record in sweep.settled() if record.outcome == "out_of_memory"]
    assert begun and left_out and len(begun) + len(left_out) == 6
    assert all(suggestion.config.optimizer.momentum <= 0.7 for suggestion in begun)
    assert {record.error for record in left_out} == {"too wide"}
    assert sweep.take_untrained() == left_out
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert len(pruned) == len(left_out)
    assert all(trial.constraints == {"out_of_memory": 1.0} for trial in pruned)


def test_a_shape_that_ran_out_of_memory_is_remembered_on_that_device_across_a_restart():
    def sizes(trial):
        batch = trial.suggest_categorical("data.batch_size", [4, 64])
        return {"data.batch_size": batch, **space(trial)}

    def reopen(device):
        capacity = gpu_capacity(gpu_bytes=10**15)
        told = {"note_out_of_memory": capacity.note_out_of_memory, "device": device}
        sweep = open_sweep(study, trials=12, space=sizes, find_misfit=capacity.find_misfit, **told)
        return sweep, capacity

    def run(sweep):
        begun = []
        while (suggestion := sweep.next()) is not None and len(begun) < 3:
            too_much = suggestion.config.data.batch_size == 64
            settle(sweep, suggestion, "out_of_memory" if too_much else "finished", curve={1: 1.0})
            begun.append(suggestion.config.data.batch_size)
        return begun

    study = new_study()
    seen = []
    while 64 not in seen:
        seen += run(reopen("small")[0])
    again, _ = reopen("small")
    later = run(again)
    assert 64 not in later
    assert all("ran out of memory here" in record.error for record in again.take_untrained())
    _, larger = reopen("large")
    assert larger._ran_out == set()


def test_a_loss_whose_weights_are_not_there_is_refused_before_training(tmp_path):
    def with_dac(trial):
        return {"loss.dac": 1.0, "loss.dac_weights": str(tmp_path / "dac.pth"), **space(trial)}

    sweep = open_sweep(trials=1, space=with_dac)
    assert sweep.next() is None
    (record,) = sweep.settled()
    assert record.outcome == "failed"
    assert record.error.startswith(
        f"loss.dac=1.0; must be null here: loss.dac_weights names {tmp_path / 'dac.pth'}"
    )


def test_what_a_sweep_says_of_a_trial_stays_with_it(open_study):
    def annotate(fields):
        return {"speed": "fast" if fields["optimizer.lr"] > 1e-3 else "slow"}

    sweep = open_sweep(open_study(), trials=1, annotate=annotate)
    suggestion = sweep.next()
    assert suggestion.notes == annotate(suggestion.fields)
    (unfinished,) = read_records(open_study())
    assert unfinished.notes == suggestion.notes
