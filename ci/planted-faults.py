#!/usr/bin/env python3
"""Plants deliberate faults, one at a time, and demands that a fast test catches each.

For each row: changes a copy of the tree by exact text (text that is not there exactly once is a failure), builds, runs the tests
that the row names, and demands that at least one of them fails. Before anything is changed, all named tests must pass. The rows
that name a model of tests/model.rs are built for the model checker, which looks at 4,000 schedules.

Usage: ci/planted-faults.py [--slice K/N] [NAME…] | --list | --fit (do the rows still fit the project? Builds nothing)
"""

import os
import sys
import time
from dataclasses import dataclass

sys.dont_write_bytecode = True  # leave no folder beside the scripts
from patched import TARGET, Patch, Tree, fit


@dataclass(frozen=True)
class Row:
    name: str
    patches: tuple
    tests: dict  # test target ("lib" for the unit tests) -> names

    def is_modelled(self):
        """Whether models judge it, which are built apart from all other tests."""
        return "model" in self.tests


def row(name, path, old, new, **tests):
    """A row of one patch; tests by target, one name or several in a list."""
    return Row(name, (Patch(path, old, new),),
               {target: [names] if isinstance(names, str) else names for target, names in tests.items()})


UNPIN = """        let Some(record) = self.record.take() else { return };
        match self.stream.filter(|_| !self.waited) {
            Some(stream) => self.core.reap_later(record, stream),
            None => drop(record),
        }
"""
LATE = """        let told = self.record.as_ref().map(|record| (record.id.clone(), self.started.elapsed()));
""" + UNPIN + """        if let Some((shard, duration)) = told.filter(|_| std::mem::take(&mut self.open)) {
            self.core.trail.emit(EventKind::ExecuteFinished { shard, outcome, duration });
        }
"""
RESERVE = """        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|wanted| *wanted <= limit)
            })
            .map_err(|used| VramError::OutOfMemory { needed: bytes, available: limit.saturating_sub(used) })?;
"""
PIN = """        let record = Arc::clone(entry.live(generation)?);
        entry.pins = entry.pins.saturating_add(1);
"""
CHANGED = "an_owned_guard_of_changed_bytes_does_not_exist"
SEAL_VECTORS = "the_vector_file_is_what_this_code_signs"

ROWS = [
    # The verdict.
    row("comparison-true", "src/manager/verify.rs", "Ok(found)) if found != record.sealed =>", "Ok(found)) if false && found != record.sealed =>",
        suite=CHANGED),
    row("digest-cached", "src/manager/verify.rs", "let launch = resident.memory.launch_digest(after).map(|()| Some(began));",
        "let (_, launch) = ((after, began), Ok(None));", suite=CHANGED),
    row("earlier-check-reused", "src/manager/verify.rs", "resident.good_since > *call", "resident.good_since > call.saturating_sub(*call)",
        suite="a_call_never_uses_a_check_that_began_before_it"),
    row("one-bad-of-a-batch", "src/manager/verify.rs", "outcome.map(|()| verifications)", "outcome.or(Ok(())).map(|()| verifications)",
        suite="when_one_check_of_a_batch_is_not_proven_none_begins"),
    row("launch-error-swallowed", "src/manager/verify.rs", "Err(failure) => Checked::Found(Err(failure)),", "Err(_) => Checked::Shared,",
        suite="the_nth_call_of_any_kind_may_fail"),
    row("quarantined-checked-again", "src/manager/verify.rs", "if let Some(first_bad) = record.failure.get() {",
        "if let Some(first_bad) = record.failure.get().filter(|_| false) {",
        suite="by_choice_only_the_shard_is_out_of_service"),
    row("record-not-compared", "src/manager/verify.rs", "if record.message.as_slice() == sealed.message_bytes() {",
        "if record.message.len() == sealed.message_bytes().len() {",
        lib="an_authentic_seal_that_its_record_does_not_know_stops_the_manager"),
    row("forged-tag-accepted", "src/manager/verify.rs", "Err(self.refuse(None, sealed.claim(&self.identity)))",
        "Err(self.refuse(None, sealed.claim(&self.identity))).or(Ok(()))",
        suite="a_flip_of_every_bit_of_a_seal_is_refused_for_the_right_reason"),
    row("expired-seal-accepted", "src/manager/verify.rs", "if record.is_expired() {", "if record.is_expired() && record.max_age.is_none() {",
        suite="an_expired_seal_executes_no_more_but_verifies_and_releases"),
    row("generation-not-checked", "src/shards.rs", "Some(record) if self.generation == generation =>", "Some(record) =>",
        suite="sealing_anew_makes_the_old_seal_stale_and_the_age_fresh"),
    # The launch.
    row("nonce-not-compared", "src/memory/check.rs", "LaunchResult { nonce, covered",
        "LaunchResult { nonce: LaunchResult::from_bytes(result).nonce, covered",
        suite=["a_digest_that_does_not_prove_itself_is_not_believed", "every_bit_of_a_result_that_arrives_changed_is_refused"]),
    row("covered-not-compared", "src/memory/check.rs", "covered: self.sizes.blocks,",
        "covered: LaunchResult::from_bytes(result).covered,", 
        suite="every_bit_of_a_result_that_arrives_changed_is_refused"),
    row("known-answers-not-asked", "src/memory.rs", "device.answer_known_questions()?;",
        "let _ = Self::answer_known_questions;", suite="a_device_that_answers_known_questions_wrongly_gets_no_manager"),
    row("salt-ignored", "src/digest/blocks.rs", "if !params.salt().is_empty() {", "if params.salt().len() > TreeParams::MAX_SALT {",
        lib="edges_of_every_block_size_equal_the_reference"),
    # Executions.
    row("refusal-executes", "src/manager/execution/scope.rs", "core.permit()?;\n        let verify_after", "let verify_after",
        suite="an_integrity_failure_stops_all_but_evidence_and_release"),
    Row("stopped-during-check",
        (Patch("src/manager/execution/scope.rs", "        core.permit()?;\n        for record in &records {\n", "        for record in &records {\n"),
         Patch("src/manager/inner/reports.rs", "let begun = match self.state.get() {\n            state @ ManagerState::Stopped(_) => Err(VramError::ManagerStopped { state }),",
               "let begun = match self.state.get() {\n            state @ ManagerState::Stopped(_) => taken.map(|()| drop(state)),")),
        {"suite": ["work_whose_check_passed_just_before_the_manager_stopped_does_not_run"]}),
    row("failed-during-check", "src/manager/execution/scope.rs", "            record.intact()?;\n", "            let _ = record.intact();\n",
        suite="no_work_begins_on_a_shard_that_another_call_just_found_changed"),
    row("stopped-at-finish", "src/manager/execution/scope.rs",
        "state @ ManagerState::Stopped(_) => Err(",
        "state @ ManagerState::Stopped(crate::error::StopReason::Shutdown) => Err(",
        suite="results_in_flight_are_discarded_when_another_shard_fails"),
    row("failed-at-finish", "src/manager/execution/scope.rs", "_ => self.record.as_ref().map_or(Ok(()), |record| record.intact()),",
        "_ => Ok(()),",
        suite="a_result_over_a_shard_that_was_found_changed_is_discarded_though_the_manager_goes_on"),
    row("bracket-skipped", "src/manager/execution/scope.rs", "(closing == Closing::Renew || scope.verify_after);", "(closing == Closing::Renew);",
        suite="a_bracket_discards_the_result_of_work_over_bytes_that_changed"),
    row("renewal-not-checked", "src/manager/execution/scope.rs", "(closing == Closing::Renew || scope.verify_after);", "scope.verify_after;",
        suite="a_change_at_any_step_holds_back_that_step_and_all_behind_it"),
    row("less-than-the-policy-demands", "src/policy.rs", "Some(false) if self.verify_after => Err(", "Some(false) if false => Err(",
        suite="a_policy_that_demands_it_checks_after_the_work_and_takes_no_less"),
    row("shared-before-the-stream", "src/manager/verify.rs", "after.filter(|event| !event.has_passed().unwrap_or(false))", "after.filter(|_| false)",
        suite="a_write_that_the_engine_has_queued_is_seen_by_the_check"),
    row("read-leaves-image", "src/manager/execution.rs", "end.is_none_or(|end| end > bytes)", "end.is_none_or(|end| end > bytes.saturating_add(1))",
        suite="reads_cross_virtual_padding_and_see_zeros_there"),
    row("pin-not-taken", "src/shards.rs",
        "let record = Arc::clone(entry.live(generation)?);\n        entry.pins = entry.pins.saturating_add(1);",
        "let record = Arc::clone(entry.live(generation)?);",
        suite="a_pinned_shard_is_busy_until_its_last_guard_is_gone"),
    row("pin-let-go-early", "src/manager/execution/scope.rs", "self.core.reap_later(record, stream),", "drop((record, stream)),",
        suite="a_dropped_guard_keeps_its_shard_until_the_engines_queue_has_run"),
    row("pinned-shard-released", "src/shards.rs", "entry.live(generation)?;\n        if entry.pins > 0 {",
        "entry.live(generation)?;\n        if entry.pins > 1 {", suite="a_pinned_shard_is_busy_until_its_last_guard_is_gone"),
    # Failure.
    row("failure-does-not-stop", "src/manager/inner.rs", "OnIntegrityFailure::Stop => self.state.stop(StopReason::IntegrityFailure),",
        "OnIntegrityFailure::Stop => false,", suite="an_integrity_failure_stops_all_but_evidence_and_release"),
    row("quarantine-not-counted", "src/manager/inner.rs", "self.ledger.hold_evidence(record.room);", "self.ledger.hold_evidence(0);",
        suite="by_choice_only_the_shard_is_out_of_service"),
    row("residue-not-counted", "src/capacity.rs", "self.ledger.residue.fetch_add(self.bytes, Ordering::AcqRel);",
        "self.ledger.residue.fetch_add(0, Ordering::AcqRel);", lib="quarantined_bytes_stay_used"),
    row("event-after-unpin", "src/manager/execution/scope.rs", "        self.tell_finished(outcome);\n" + UNPIN, LATE,
        suite="a_shard_is_not_let_go_before_the_trail_says_that_its_execution_ended"),
    row("event-dropped", "src/manager/execution/scope.rs",
        "core.announce_execute(&record.id)?;\n            scopes.push", "scopes.push",
        suite="every_step_of_an_ordinary_life_leaves_its_event_once"),
    row("trail-failure-ignored", "src/audit/trail.rs", "(_, Some(Err(source))) => return (Err(VramError::AuditUnavailable { event, source }), false),",
        "(_, Some(Err(_))) => return (Ok(()), true),", suite="a_required_trail_that_fails_permits_nothing_and_hinders_no_protection"),
    # Seals and keys.
    row("wrong-key-purpose", "src/keys.rs", "for part in [purpose.label(), kind", "for part in [b\"other\".as_slice(), kind",
        lib=["a_key_of_another_purpose_device_manager_or_worker_does_not_verify", SEAL_VECTORS]),
    row("key-of-any-device", "src/keys.rs", "info.extend_from_slice(uuid.as_bytes());", "let _ = uuid;",
        lib="a_key_of_another_purpose_device_manager_or_worker_does_not_verify"),
    row("length-not-signed", "src/seal.rs", "let tag = key.sign(&bytes);\n        Ok(",
        "let tag = key.sign(&SealMessage { byte_len: 1, ..message.clone() }.encode().unwrap_or_default());\n        Ok(",
        lib=[SEAL_VECTORS, "every_flipped_bit_every_cut_and_every_extension_is_refused"]),
    # Signed and verified without it: only who asks for the length can tell.
    Row("length-not-stated", (Patch("src/seal/message.rs", "        bytes.extend_from_slice(&self.byte_len.to_le_bytes());\n", ""),
                              Patch("src/seal/message.rs", 'byte_len: input.u64("byte_len")?', "byte_len: 1")),
        {"lib": ["messages_survive_the_round_trip"]}),
    row("half-signed", "src/keys.rs", ".chain_update(message)", ".chain_update(message.get(..64).unwrap_or(message))",
        lib="every_flipped_bit_every_cut_and_every_extension_is_refused"),
    row("readable-secret-accepted", "src/keys/file.rs", "(0o077, \"can be used", "(0o022, \"can be used",
        lib="files_are_judged"),
    # Memory.
    row("headroom-ignored", "src/capacity.rs", "let limit = self.total.saturating_sub(self.headroom);", "let limit = self.total;",
        lib="overshoot_is_refused_with_need_and_have_and_changes_nothing"),
    row("others-memory-taken", "src/manager/seal.rs", "if free < needed { Err(", "if free < needed && free == 0 { Err(",
        suite="a_driver_that_reports_no_room_gets_nothing"),
    row("empty-residency-accepted", "src/memory/region.rs", "    match answer.kind {\n        MemoryKind::Device => {}",
        "    if answer.range.bytes == 0 {\n        return Ok(());\n    }\n    match answer.kind {\n        MemoryKind::Device => {}",
        lib="only_a_complete_answer_is_a_proof", suite="residency_lies_are_refused_at_allocation"),
    row("wipe-skipped", "src/memory/shard.rs", "let wiped = match self.wipe() {",
        "let wiped = match Ok::<u64, DeviceFailure>(self.room()) {",
        suite="a_drained_shutdown_wipes_everything_and_says_so"),
    row("tail-not-wiped", "src/memory/shard.rs", "Holding::Owned(region) => region.unfreed().into_iter().collect(),",
        "Holding::Owned(_) => self.image.spans().collect(),", suite="no_single_missed_fill_or_count_of_a_wipe_leaves_anything_behind"),
    row("wipe-not-proven", "src/memory/wipe.rs", "if LaunchResult::from_bytes(&found) == expected {",
        "if LaunchResult::from_bytes(&found) == expected || found.len() == LaunchResult::BYTES {",
        suite="a_wipe_that_is_not_proven_keeps_the_memory_out_of_the_pool"),
    row("free-error-swallowed", "src/memory/region.rs", "self.driver.free(self.span.ptr)?;", "let _ = self.driver.free(self.span.ptr);",
        suite="memory_that_cannot_be_freed_stays_counted"),
    row("written-while-read-only", "src/memory/shard.rs", "region.make_writable()?;", "let _ = &region;",
        suite="every_wipe_makes_the_memory_writable_first"),
    row("switch-not-looked-behind", "src/manager/seal.rs", "if again == sealed {", "if again.image_bytes == sealed.image_bytes {",
        suite="bytes_that_change_with_the_switch_are_never_signed"),
    row("adopted-off-by-one", "src/types/raw.rs", "Ok(Span { ptr: DevicePtr(self.ptr), bytes: self.bytes })",
        "Ok(Span { ptr: DevicePtr(self.ptr), bytes: self.bytes.saturating_sub(1).max(1) })",
        suite="exactly_the_regions_are_wiped_and_only_where_the_owner_allows_it"),
    row("adopted-twice", "src/shards.rs", "table.refuse_overlap(&adopted)?;", "let _ = table.refuse_overlap(&adopted);",
        lib="memory_belongs_to_one_shard"),
    # What may be sealed.
    row("policy-skipped", "src/manager/seal.rs",
        "self.policy.admit_origin(spec.origin()).inspect_err(|error| self.report_violation(error))?;", "",
        suite="policy_violations_are_critical_events"),
    row("expected-digest-ignored", "src/manager/seal.rs", "|image| image.judge(resident.digest)",
        "|image| if spec.expected.is_some() { Ok(()) } else { image.judge(resident.digest) }",
        suite="a_digest_that_is_not_the_expected_one_is_refused_and_wiped"),
    row("expected-file-ignored", "src/source/measure.rs", "wanted.judge(hasher.finish())?;", "let _ = wanted.judge(hasher.finish());",
        suite="a_file_is_expected_in_every_layout_and_one_that_only_looks_like_it_is_not"),
    row("expected-layout-ignored", "src/source/measure.rs", "judge_layout(*layout, opened.layout().digest())?;",
        "let _ = judge_layout(*layout, opened.layout().digest());", suite="image_and_layout_are_expected_together"),
    Row("set-part-twice", (Patch("src/manager/set.rs", "if !seen.insert(index) =>", "if !seen.insert(index) && index > count =>"),
                           Patch("src/manager/set.rs", "if index != place =>", "if index > place =>")),
        {"suite": ["parts_that_do_not_belong_together_are_refused"]}),
    # Between threads: each is found by the scheduler of the models.
    row("ledger-in-two-steps", "src/capacity.rs", RESERVE, """        let used = self.used();
        if used.checked_add(bytes).is_none_or(|wanted| wanted > limit) {
            return Err(VramError::OutOfMemory { needed: bytes, available: limit.saturating_sub(used) });
        }
        self.used.fetch_add(bytes, Ordering::AcqRel);
""", model=["racing_seals_never_take_more_than_there_is", "headroom_is_kept_whoever_comes_first"]),
    row("pin-in-two-steps", "src/shards.rs", PIN, PIN.replace("        entry.pins", """        drop(table);
        let mut table = self.lock();
        let entry = table.slot(slot).ok_or(Absent::Unknown)?;
        entry.pins"""), model="a_shard_is_released_once_and_never_under_an_execution"),
    row("dropped-lets-go-at-once", "src/manager/execution/scope.rs", "self.core.reap_later(record, stream),", "drop((record, stream)),",
        model="a_dropped_execution_keeps_its_shard_until_the_engines_work_is_done"),
    row("check-of-before-the-call", "src/manager/verify.rs", "resident.good_since > *call", "resident.good_since > call.saturating_sub(*call)",
        model="after_a_flip_nobody_executes_however_checks_are_shared"),
    row("batch-in-its-own-order", "src/manager/verify.rs", "        order.sort_unstable();\n", "        order.rotate_left(0);\n",
        model="batches_in_any_order_begin_whole_or_not_at_all_and_never_wait_for_each_other"),
]


def judge(tree, each):
    """(whether the row is as it should be, what happened)"""
    try:
        caught = tree.noticed(each.patches, each.tests)
    except (LookupError, RuntimeError) as problem:
        return False, f"FAILED: {problem}"
    return bool(caught), f"caught by {caught}" if caught else "SURVIVED: no test noticed"


def chosen(arguments):
    """The rows that the arguments name, or None when they are wrong."""
    rows = ROWS
    if arguments[:1] == ["--slice"]:
        kth, slices = (int(number) for number in arguments[1].split("/"))
        rows, arguments = ROWS[kth - 1::slices], arguments[2:]
    unknown = set(arguments) - {each.name for each in ROWS}
    if unknown:
        print(f"error: no row {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return None
    return [each for each in rows if not arguments or each.name in arguments]


def main(arguments):
    """Runs the rows."""
    if arguments == ["--list"]:
        print("\n".join(each.name for each in ROWS))
        return 0
    if arguments == ["--fit"]:
        return 1 if fit(ROWS) else 0
    rows = chosen(arguments)
    if not rows:
        return 2
    failed = 0
    # Two copies of one workspace must not share a target folder: their crates have the same names there.
    work = TARGET / "deep" / "planted"
    models = {"RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} --cfg vram_model".strip(), "VRAM_MODEL_ITERATIONS": "4000"}
    trees = {False: Tree(work / "tree", work / "target", "mutants"), True: Tree(work / "tree", work / "model", environment=models)}
    for modelled, tree in trees.items():
        of_tree = [each for each in rows if each.is_modelled() == modelled]
        missing = tree.missing(of_tree) if of_tree else []
        if missing:
            print(f"error: without a fault these do not pass: {', '.join(missing)}", file=sys.stderr)
            return 1
    for each in rows:
        began = time.monotonic()
        good, what = judge(trees[each.is_modelled()], each)
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {each.name:26} {time.monotonic() - began:4.0f} s  {what}", flush=True)
    print(f"planted faults: {len(rows) - failed} caught, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
