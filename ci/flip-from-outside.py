#!/usr/bin/env python3
"""Changes one bit of a running worker's sealed weights from outside the process, and expects the worker to refuse and stop.

The mock device keeps its memory in the worker's address space, so root can reach it as a fault in VRAM would: behind the back
of every line of the crate. Five cases for each layout:

  flip     stop the worker between instructions, find 64 bytes of a large tensor in its memory: they must be there exactly once
           (a second copy would mean that weights live in host RAM too), change one bit, let it run on. It must exit with status
           3, after a critical `seal_verification_failed`, without starting another execute.
  live     change one bit of the resident copy while the worker runs, at a random moment or right behind the first
           `execute_started`, --live times: each time status 3 and one critical event, and no execute counts whose closing check
           began after the change.
  twin     the same without the change: it must succeed.
  calm     stop it and let it run on without a change: it must succeed, so that the stopping is not what the flip case sees.
  replace  overwrite, then replace, the model's file after sealing: what the worker prints must not change.

covers: RES-1 VER-1 VER-4 VER-5 VER-15

Usage: ci/flip-from-outside.py --worker PATH [--model FILE] [--layout file|tensors]… [--seed N] [--live N]
Without --model: MiniLM when ci/fetch-minilm.sh can fetch it, else a generated file of random weights.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SKIP = 77
PIECE = 64
PICKS = 5
PATIENCE = 120  # seconds for any one wait
CHUNK = 16 << 20


class Failed(Exception):
    """An expectation that did not hold."""


def expect(holds, what):
    if not holds:
        raise Failed(what)


class Worker:
    """A running worker whose audit events are read as they come."""

    def __init__(self, options, model, layout, executes):
        command = [options.worker, "run", str(model), "--layout", layout, "--executes", str(executes), "--device", "mock", "--json"]
        environment = dict(os.environ, RUST_LOG="vram_residency::audit=info", NO_COLOR="1")
        self.process = subprocess.Popen(command, env=environment, text=True, errors="replace",
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.pid = self.process.pid
        self.events, self.output = [], ""
        self.readers = [threading.Thread(target=self._read_events), threading.Thread(target=self._read_output)]
        for reader in self.readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join()

    def _read_events(self):
        for line in self.process.stderr:
            self.events.append(ANSI.sub("", line.rstrip("\n")))

    def _read_output(self):
        self.output = self.process.stdout.read()

    def places(self, event):
        """The positions, among the lines so far, of every occurrence of an event."""
        pattern = re.compile(rf"\b{event}\b")
        return [at for at, line in enumerate(list(self.events)) if pattern.search(line)]

    def records(self):
        """The audit events so far."""
        found = (re.search(r' record=("\{.*\}")$', line) for line in list(self.events))
        return [json.loads(json.loads(record.group(1))) for record in found if record]

    def wait_for_event(self, event):
        until = time.monotonic() + PATIENCE
        while not self.places(event):
            expect(self.process.poll() is None and time.monotonic() < until, f"no {event}:\n" + self.tail())
            time.sleep(0.0005)

    def wait_for_executes(self, count):
        until = time.monotonic() + PATIENCE
        while len(self.places("execute_finished")) < count:
            expect(self.process.poll() is None, f"the worker ended before execute {count}:\n" + self.tail())
            expect(time.monotonic() < until, f"no {count} executes within {PATIENCE} s:\n" + self.tail())
            time.sleep(0.002)

    def stop(self):
        os.kill(self.pid, signal.SIGSTOP)
        until = time.monotonic() + PATIENCE
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            expect(self.process.poll() is None and time.monotonic() < until, "the worker could not be stopped")
            time.sleep(0.001)

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def finish(self):
        """Waits for the end; returns (exit status, the JSON object it printed)."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"the worker still runs after {PATIENCE} s:\n" + self.tail()) from None
        for reader in self.readers:
            reader.join()
        try:
            return status, json.loads(self.output)
        except ValueError:
            raise Failed(f"status {status}, and standard output is not one JSON object: {self.output[:300]!r}\n" + self.tail()) from None

    def tail(self):
        return "\n".join(f"    {line}" for line in self.events[-12:])


def memory_areas(pid):
    """Yields (begin, end, writable) of the process's memory that could hold a copy: whatever is writable, or private and backed
    by no file. Code and read-only files are left out."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, _, _, inode, *name = line.split(maxsplit=5)
        begin, end = (int(part, 16) for part in span.split("-"))
        if name and name[0] in ("[vvar]", "[vsyscall]", "[vvar_vclock]", "[vdso]"):
            continue
        if "w" in rights or (inode == "0" and "p" in rights):
            yield begin, end, "w" in rights


def find(pid, needle):
    """Every address in the stopped process at which `needle` begins."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end, writable in memory_areas(pid):
            at, carried = begin, b""
            while at < end:
                try:
                    memory.seek(at)
                    piece = memory.read(min(CHUNK, end - at))
                except OSError:
                    # An area that nobody may read, not even root, holds nothing that the worker reads.
                    expect(not writable, f"writable memory at {at:#x} cannot be searched")
                    break
                if not piece:
                    break
                window = carried + piece
                hit = window.find(needle)
                while hit >= 0:
                    found.append(at - len(carried) + hit)
                    hit = window.find(needle, hit + 1)
                carried = window[-(len(needle) - 1):]
                at += len(piece)
    return found


def flip_bit(pid, address, bit):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        byte = memory.read(1)[0]
        memory.seek(address)
        memory.write(bytes([byte ^ (1 << bit)]))


def largest_tensors(data):
    """(name, begin, end) in the file of the tensors that make up most of it, largest first."""
    size, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    spans = [(name, 8 + size + entry["data_offsets"][0], 8 + size + entry["data_offsets"][1]) for name, entry in header.items()]
    spans.sort(key=lambda span: span[1] - span[2])
    return [span for span in spans if span[2] - span[1] >= 1 << 16][:20]


def pick(rng, data, tensors):
    """A random piece of a large tensor that occurs in the file exactly once: (tensor, place in the file, the bytes)."""
    for _ in range(1000):
        name, begin, end = rng.choice(tensors)
        at = rng.randrange(begin, end - PIECE)
        piece = data[at:at + PIECE]
        if len(set(piece)) >= PIECE // 3 and data.find(piece) == at and data.find(piece, at + 1) < 0:
            return name, at, piece
    raise Failed("the model repeats itself: no piece of it is unique")


def statistics(report):
    return json.dumps([report["shard"]["digest"], report["tensors"]], sort_keys=True)


def case_flip(options, rng, model, layout):
    data = model.read_bytes()
    tensors = largest_tensors(data)
    expect(tensors, "the model has no tensor of 64 KiB")
    with Worker(options, model, layout, 100_000) as worker:
        worker.wait_for_executes(3)
        counts = []
        for _ in range(PICKS):
            worker.stop()
            name, at, piece = pick(rng, data, tensors)
            hits = find(worker.pid, piece)
            counts.append(len(hits))
            if len(hits) == 1:
                break
            # A copy out of VRAM may be under way right now; a spare copy would be there each time.
            worker.go_on()
            time.sleep(rng.uniform(0.005, 0.05))
        else:
            raise Failed(f"64 bytes of the weights were in memory {counts} times, never exactly once")
        offset, bit = rng.randrange(PIECE), rng.randrange(8)
        flip_bit(worker.pid, hits[0] + offset, bit)
        worker.go_on()
        status, report = worker.finish()

        expect(status == 3, f"exit status {status} is not 3:\n" + worker.tail())
        failures = worker.places("seal_verification_failed")
        expect(failures, "no seal_verification_failed event:\n" + worker.tail())
        expect("critical" in worker.events[failures[0]].lower(), f"the event is not critical: {worker.events[failures[0]]}")
        started, finished = worker.places("execute_started"), worker.places("execute_finished")
        expect(started[-1] < failures[0], "an execute was started after the failure:\n" + worker.tail())
        error = report.get("error", {})
        expect(error.get("code") == "SEAL_VERIFICATION_FAILED", f"the report's error is {error}")
        expect(str(error.get("category", "")).lower() == "integrity", f"the report's category is {error}")
        executed = report.get("executed", error.get("executed"))
        # The execute during which the bit changed may have been discarded instead of finished.
        expect(executed is None or len(finished) - 1 <= executed <= len(started),
               f"{executed} executed, but {len(started)} were started and {len(finished)} finished")
        return f"bit {bit} of byte {at + offset} ({name}) found after {len(finished)} executes, picks {counts}"


def resident(pid, needle, image_bytes):
    """The address of a piece in the one area that is large enough for the image: what is read passes through smaller ones."""
    areas = [(begin, end) for begin, end, _ in memory_areas(pid) if end - begin >= image_bytes]
    hits = [hit for hit in find(pid, needle) if any(begin <= hit < end for begin, end in areas)]
    expect(len(hits) == 1, f"{len(hits)} resident copies of 64 bytes of the weights")
    return hits[0]


def live_once(options, rng, model, layout, at_once):
    data = model.read_bytes()
    with Worker(options, model, layout, 100_000) as worker:
        worker.wait_for_event("vram_sealed")
        name, at, piece = pick(rng, data, largest_tensors(data))
        address, bit = resident(worker.pid, piece, len(data) // 2) + rng.randrange(PIECE), rng.randrange(8)
        worker.wait_for_event("execute_started")
        if not at_once:
            time.sleep(rng.uniform(0, 3))
        flip_bit(worker.pid, address, bit)
        changed = time.time_ns()
        status, report = worker.finish()
        expect(status == 3, f"exit status {status} is not 3:\n" + worker.tail())
        records = worker.records()
        failures = [record for record in records if record["event"] == "seal_verification_failed"]
        expect(len(failures) == 1 and failures[0]["severity"] == "critical", f"not one critical failure: {failures}")
        checked, counted, late = 0, 0, 0
        for record in records:
            if record["event"] == "seal_verified":
                checked = record["at_ns"] - record["duration_ns"]
            elif record["event"] == "execute_finished" and record["outcome"] == "finished":
                counted += 1
                late += checked > changed
        expect(late == 0, f"{late} of {counted} executes count though their closing check began after the change")
        expect(report["executed"] == counted, f"{report['executed']} executed, {counted} in the trail")
        return counted


def case_live(options, rng, model, layout):
    counted = [live_once(options, rng, model, layout, turn % 5 == 0) for turn in range(options.live)]
    return f"{options.live} of {options.live} found, after {counted} executes"


def case_twin(options, _rng, model, layout):
    with Worker(options, model, layout, 3) as worker:
        status, report = worker.finish()
        expect(status == 0, f"exit status {status} without any change:\n" + worker.tail())
        expect(report["executed"] == 3, f"{report['executed']} executed, not 3")
        expect(len(worker.places("execute_finished")) == 3, "not 3 execute_finished events:\n" + worker.tail())
        expect(not worker.places("seal_verification_failed"), "a failure without any change:\n" + worker.tail())
        return "3 executes"


def case_calm(options, rng, model, layout):
    data = model.read_bytes()
    with Worker(options, model, layout, 10) as worker:
        worker.wait_for_executes(1)
        worker.stop()
        find(worker.pid, pick(rng, data, largest_tensors(data))[2])
        worker.go_on()
        status, report = worker.finish()
        expect(status == 0 and report["executed"] == 10, f"status {status}, {report.get('executed')} executed:\n" + worker.tail())
        return "10 executes, one stop"


def case_replace(options, _rng, model, layout):
    executes = 20
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.safetensors"
        shutil.copyfile(model, copy)
        with Worker(options, copy, layout, executes) as worker:
            status, untouched = worker.finish()
            expect(status == 0, f"exit status {status} without any change:\n" + worker.tail())
            expect(untouched["tensors"], "the report has no statistics to compare")
        with Worker(options, copy, layout, executes) as worker:
            worker.wait_for_executes(1)
            worker.stop()
            expect(len(worker.places("execute_finished")) < executes, "the worker was done before the file could be replaced")
            # First the very file that was read, then another under its name.
            length = copy.stat().st_size
            with open(copy, "r+b") as file:
                size, = struct.unpack("<Q", file.read(8))
                file.seek(8 + size)
                for _ in range((length - 8 - size) // CHUNK):
                    file.write(os.urandom(CHUNK))
                file.write(os.urandom((length - 8 - size) % CHUNK))
            other = Path(folder) / "other"
            other.write_bytes(b"not a model")
            other.replace(copy)
            worker.go_on()
            status, replaced = worker.finish()
            expect(status == 0, f"exit status {status} after the file was replaced:\n" + worker.tail())
            expect(replaced["executed"] == executes, f"{replaced['executed']} executed, not {executes}")
        expect(statistics(replaced) == statistics(untouched), "the statistics changed with the file on disk")
        return f"{len(untouched['tensors'])} tensors unchanged"


def generate(path, rng):
    """Writes a safetensors file of 48 MiB that does not repeat itself."""
    count, header, begin = 6, {}, 0
    for index in range(count):
        header[f"layer.{index}.weight"] = {"dtype": "F32", "shape": [2048, 1024], "data_offsets": [begin, begin + (8 << 20)]}
        begin += 8 << 20
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(count):
            values = bytearray(rng.randbytes(8 << 20))
            # Exponents near zero: plain numbers, no NaN and no infinity.
            values[3::4] = bytes(byte & 0x80 | 0x3E for byte in values[3::4])
            file.write(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True, help="path of the vram-worker binary")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--layout", action="append", choices=["file", "tensors"])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--live", type=int, default=2, help="how often a bit is changed without stopping the worker")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("SKIPPED flip-from-outside: needs root")
        return SKIP
    print(f"seed {options.seed}")
    rng = random.Random(options.seed)

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            fetched = subprocess.run(["bash", str(ROOT / "ci/fetch-minilm.sh")], capture_output=True, check=False)
            model = ROOT / ".models/minilm/model.safetensors"
            if fetched.returncode != 0:
                model = Path(folder) / "generated.safetensors"
                generate(model, rng)
        print(f"model {model.name}, {model.stat().st_size} bytes")
        for layout in options.layout or ["file", "tensors"]:
            for case in (case_twin, case_calm, case_flip, case_live, case_replace):
                name = f"{case.__name__.removeprefix('case_')}, layout {layout}"
                try:
                    print(f"ok: {name}: {case(options, rng, model, layout)}", flush=True)
                except Failed as problem:
                    wrong += 1
                    print(f"FAILED: {name}: {problem}", file=sys.stderr, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
