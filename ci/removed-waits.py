#!/usr/bin/env python3
"""Shows that every ordering wait of the library is needed, or which other wait stands behind it.

For each row: copies the tree to a temporary folder, takes one wait out by exact text (text that is not there exactly once is a
failure), builds, runs the tests that the row names, and demands that at least one of them fails. A row that says `behind`
removes a wait that another one makes redundant for the order: alone it must go unnoticed, and together with the other it must
be noticed. Before anything is removed, all named tests must pass.

Usage: ci/removed-waits.py [NAME…] | --list | --fit (do the rows still fit the project? Builds nothing)
"""
# covers: VER-10

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True  # leave no folder beside the scripts
from patched import TARGET, Patch, Tree, fit


@dataclass(frozen=True)
class Row:
    name: str
    patches: tuple
    tests: dict  # test target ("lib" for the unit tests) -> names
    behind: str = ""  # which wait makes this one redundant
    also: tuple = ()  # what to remove besides, to show that


# A buffer's bytes without their wait, for the rows that show which of two waits does the work.
UNWAITED = Patch(
    "src/ffi/host.rs",
    "    /// Overwrites it with zeros, once",
    "    /// Its bytes now.\n    pub(crate) fn bytes_now(&mut self) -> Result<&mut [u8], DriverError> {\n"
    "        Ok(self.settled())\n    }\n\n    /// Overwrites it with zeros, once",
)
WIPE_WAIT = Patch(
    "src/ffi/host.rs",
    "        let waited = self.owner.wait(self.base);\n        if waited.is_err()",
    "        let waited: Result<(), DriverError> = Ok(());\n        if waited.is_err()",
)
UPLOAD_SYNC = Patch(
    "src/memory/staging.rs", "        stream.synchronize()?;\n        drop(buffers);", "        drop(buffers);")
COLLECT_SYNC = Patch(
    "src/memory/check.rs",
    "        stream.synchronize()?;\n        let bytes = self.readback.bytes_mut()?;",
    "        let _ = (device, stream);\n        let bytes = self.readback.bytes_mut()?;",
)
READER_SYNC = Patch("src/memory/reader.rs", "        reader.stream.synchronize()?;\n", "")
PROOF_SYNC = Patch(
    "src/memory/wipe.rs",
    "        stream.synchronize()?;\n        proof.bytes_mut()?.first_chunk()",
    "        proof.bytes_mut()?.first_chunk()",
)

ON_STREAM = {"suite": ["a_write_that_the_engine_has_queued_is_seen_by_the_check", "a_batch_follows_the_stream_too",
                       "checks_and_brackets_follow_the_engines_stream"]}
UPLOAD = {"suite": ["many_callers_at_once_cost_fewer_launches_than_calls", "a_seal_within_its_age_executes"]}
CHECK = {"suite": ["a_batch_begins_all_in_order_with_one_launch_each", "a_reseal_that_fails_leaves_the_old_seal_good"]}
READ = {"suite": ["a_failed_read_leaves_nothing_on_its_way_to_the_host", "reads_cross_virtual_padding_and_see_zeros_there"]}
WIPE = {"suite": ["a_wipe_that_could_not_be_waited_for_is_no_wipe", "a_drained_shutdown_wipes_everything_and_says_so"]}
BUILD = {"suite": ["a_seal_within_its_age_executes"], "lib": ["a_shard_lives_its_whole_life"]}
FINISH = {"suite": ["finish_waits_for_what_the_engine_enqueued",
                    "a_bracket_sees_what_the_engine_enqueued_during_the_work"]}
DROPPED = {"suite": ["a_dropped_guard_keeps_its_shard_until_the_engines_queue_has_run"]}
ENDED = {"suite": ["shutdown_and_the_end_wait_for_the_work_of_dropped_guards"]}
FAILED_WAIT = {"suite": ["a_shard_stays_pinned_also_when_waiting_for_the_engine_failed"]}
SCRATCH = {"suite": ["the_wipe_waits_for_the_streams_that_used_the_scratch",
                     "the_end_of_the_manager_wipes_live_scratch_behind_its_engines_work"]}

ROWS = [
    Row("check-follows-engine", (Patch(
        "src/memory/shard.rs",
        "        if let Some(event) = after {\n            self.device.driver.wait_event(self.stream.id, event)?;\n        }",
        "        let _ = after;"),), ON_STREAM),
    Row("collect-synchronize", (COLLECT_SYNC,), CHECK),
    Row("collect-both", (COLLECT_SYNC, UNWAITED, Patch(
        "src/memory/check.rs",
        "        let bytes = self.readback.bytes_mut()?;", "        let bytes = self.readback.bytes_now()?;")), CHECK),
    Row("upload-synchronize", (UPLOAD_SYNC,), UPLOAD,
        behind="the wait in the wipe of the staging buffers, and the order of the shard's own stream", also=(WIPE_WAIT,)),
    Row("buffer-bytes", (Patch(
        "src/ffi/host.rs", "        self.owner.wait(self.base)?;\n        Ok(self.settled())", "        Ok(self.settled())"),),
        UPLOAD),
    Row("buffer-wipe", (WIPE_WAIT,), {"lib": ["wiping_a_buffer_runs_its_copies_first"], **READ}),
    Row("reader-synchronize", (READER_SYNC,), READ),
    Row("reader-both", (READER_SYNC, UNWAITED, Patch(
        "src/memory/reader.rs", "let bytes = reader.buffer.bytes_mut()?;", "let bytes = reader.buffer.bytes_now()?;")), READ),
    Row("proof-synchronize", (PROOF_SYNC,), WIPE),
    Row("proof-both", (PROOF_SYNC, UNWAITED, Patch(
        "src/memory/wipe.rs", "proof.bytes_mut()?.first_chunk()", "proof.bytes_now()?.first_chunk()")), WIPE),
    Row("known-count-buffer", (UNWAITED, Patch(
        "src/memory/self_test.rs", "let answer = buffer.bytes_mut()?.first_chunk()",
        "let answer = buffer.bytes_now()?.first_chunk()")), BUILD),
    Row("known-write-buffer", (WIPE_WAIT,), BUILD),
    Row("earlier-work-before-wipe", (Patch(
        "src/memory/shard.rs", "        let _earlier = self.stream.synchronize();\n", ""),),
        {"suite": ["whichever_call_of_the_device_fails_the_memory_comes_back_untouched", *WIPE["suite"]]}),
    Row("finish", (Patch(
        "src/manager/execution/scope.rs", ".and_then(|event| event.synchronize());", ".map(drop);"),), FINISH),
    Row("finish-failed-wait", (Patch(
        "src/manager/execution/scope.rs", "self.stream.filter(|_| !self.waited)",
        "self.stream.filter(|_| outcome == ExecuteOutcome::Abandoned)"),), FAILED_WAIT),
    Row("reap-before-event", (Patch(
        "src/manager/inner/pins.rs", "self.event(device).and_then(Event::has_passed).unwrap_or_else(",
        "self.event(device).and_then(Event::has_passed).map(|_| true).unwrap_or_else("),), DROPPED),
    Row("reap-all", (Patch(
        "src/manager/inner/pins.rs", "reapable.event(&self.device).and_then(Event::synchronize)",
        "reapable.event(&self.device).map(drop)"),), ENDED),
    Row("shutdown-reaps", (Patch(
        "src/manager/inner/pins.rs", "            self.reap();\n            let look_again",
        "            let look_again"),), ENDED),
    Row("end-reaps", (Patch(
        "src/manager/shutdown.rs", "        self.core.reap_all();\n        self.core.retire_everything();",
        "        self.core.retire_everything();"),), ENDED),
    Row("shutdown-unpinned", (Patch(
        "src/shards.rs", "if table.underway == 0 && table.slots.iter().all(|entry| entry.pins == 0) {",
        "if table.underway == 0 {"),),
        {"suite": ["a_shutdown_waits_for_its_deadline_and_leaves_what_is_in_use_to_the_end",
                                  "a_shutdown_is_drained_when_the_last_guard_finishes_in_time"]}),
    Row("shutdown-underway", (Patch(
        "src/shards.rs", "if table.underway == 0 && table.slots.iter()", "if table.slots.iter()"),),
        {"suite": ["a_shutdown_waits_for_a_seal_that_is_under_way_and_what_is_being_sealed_is_not_sealed"]}),
    Row("protect-users", (Patch(
        "src/driver/cuda.rs",
        "kill the context.\n        self.wait_for_users(span.ptr)?;", "kill the context."),),
        {"lib": ["read_only_is_claimed_only_when_the_driver_confirms_it"]}),
    Row("scratch-streams", (Patch(
        "src/memory/scratch.rs", "driver.synchronize(stream).or_else(|_theirs| driver.synchronize(stream))",
        "{ let _ = (driver, stream); Ok::<(), crate::DriverError>(()) }"),), SCRATCH),
]


def judge(tree, row):
    """(whether the row is as it should be, what happened)"""
    try:
        alone = tree.noticed(row.patches, row.tests)
        if alone:
            return True, f"caught by {alone}"
        if not row.behind:
            return False, "SURVIVED: no test noticed"
        together = tree.noticed(row.patches + row.also, row.tests)
    except (LookupError, RuntimeError) as problem:
        return False, f"FAILED: {problem}"
    if together:
        return True, f"redundant, behind {row.behind}; without both caught by {together}"
    return False, f"SURVIVED, also without {row.behind}"


def main(arguments):
    if arguments == ["--list"]:
        print("\n".join(row.name for row in ROWS))
        return 0
    if arguments == ["--fit"]:
        return 1 if fit(ROWS) else 0
    unknown = set(arguments) - {row.name for row in ROWS}
    if unknown:
        print(f"error: no row {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    rows = [row for row in ROWS if not arguments or row.name in arguments]
    results = []
    with tempfile.TemporaryDirectory(prefix="removed-waits-") as folder:
        tree = Tree(Path(folder), TARGET / "removed-waits")
        missing = tree.missing(rows)
        if missing:
            print(f"error: with every wait in place these do not pass: {', '.join(missing)}", file=sys.stderr)
            return 1
        for row in rows:
            began = time.monotonic()
            good, what = judge(tree, row)
            results.append((row.name, good, what))
            print(f"{'ok  ' if good else 'FAIL'} {row.name:26} {time.monotonic() - began:4.0f} s  {what}", flush=True)
    failed = sum(not good for _, good, _ in results)
    print(f"removed waits: {len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
