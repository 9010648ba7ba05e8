//! Questions whose answers only a device has. Recorded, not asserted.

use std::sync::Arc;

use vram_residency_rig::{Access, Machine, Mapped, Raw};

use crate::run::{Answers, CAPACITY, Case, Skip};

type Done = Result<(), Skip>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub static CASES: &[Case] = &[$(Case { name: stringify!($name), group: "question", run: $name }),*];
    };
}

cases![
    is_read_only_accepted_and_reported,
    does_a_copy_write_read_only_memory,
    does_a_fill_write_read_only_memory,
    does_a_kernel_write_read_only_memory,
    can_a_second_mapping_write_what_is_read_only,
    after_a_fault_in_a_context_made_before,
    after_a_fault_in_a_context_made_after,
    after_a_fault_and_a_reset,
];

/// The granularity of the virtual-memory API, or a multiple.
const BYTES: usize = 2 << 20;

fn machine() -> Machine {
    Machine::from_env(CAPACITY)
}

/// Memory full of ones, read-only.
fn read_only(raw: &Arc<Raw>, answers: &Answers) -> Result<Mapped, Skip> {
    let mapped = raw.map(BYTES).map_err(Skip)?;
    raw.write(mapped.address(), &vec![1; BYTES]);
    if !answers.went("read_only", &mapped.set_access(Access::Read)) {
        return Err(Skip("the driver does not map memory read-only".to_owned()));
    }
    Ok(mapped)
}

/// Whether the first byte still is what it was, where the driver still reads.
fn contents(raw: &Raw, mapped: &Mapped, answers: &Answers) {
    match raw.try_read(mapped.address(), 1) {
        Ok(bytes) if bytes == [1] => answers.note("contents", "unchanged"),
        Ok(_) => answers.note("contents", "changed"),
        Err(code) => answers.note("contents", format!("cannot be read: driver error {code}")),
    }
}

fn is_read_only_accepted_and_reported(answers: &Answers) -> Done {
    let machine = machine();
    let raw = &machine.raw;
    let mapped = read_only(raw, answers)?;
    let reported = raw.access(mapped.address()).map_err(Skip)?;
    answers.note("reported", if reported == 1 { "read-only".to_owned() } else { format!("flags {reported}") });
    answers.went("read", &raw.try_read(mapped.address(), BYTES));
    answers.went("back to read-write", &mapped.set_access(Access::ReadWrite));
    answers.went("write after that", &raw.try_write(mapped.address(), &[2]));
    Ok(())
}

fn does_a_copy_write_read_only_memory(answers: &Answers) -> Done {
    let machine = machine();
    let raw = &machine.raw;
    let mapped = read_only(raw, answers)?;
    answers.went("copy", &raw.try_write(mapped.address(), &[2; 4096]));
    contents(raw, &mapped, answers);
    end(machine, mapped)
}

fn does_a_fill_write_read_only_memory(answers: &Answers) -> Done {
    let machine = machine();
    let raw = &machine.raw;
    let mapped = read_only(raw, answers)?;
    let stream = raw.stream();
    answers.went("fill", &raw.fill(stream, mapped.address(), 2, 4096));
    answers.went("synchronize", &raw.synchronize(stream));
    contents(raw, &mapped, answers);
    end(machine, mapped)
}

/// A kernel that writes where it may not.
fn fault(raw: &Arc<Raw>, answers: &Answers) -> Result<Mapped, Skip> {
    let mapped = read_only(raw, answers)?;
    let kernels = raw.engine_kernels();
    let kernels = kernels.ok_or_else(|| Skip("no engine kernels were built for this device".to_owned()))?;
    let stream = raw.stream();
    answers.went("launch", &kernels.flip(stream, mapped.address(), 1));
    answers.went("synchronize", &raw.synchronize(stream));
    std::mem::forget(kernels);
    Ok(mapped)
}

fn does_a_kernel_write_read_only_memory(answers: &Answers) -> Done {
    let machine = machine();
    let raw = &machine.raw;
    let mapped = fault(raw, answers)?;
    contents(raw, &mapped, answers);
    let sticky = raw.try_alloc(4096);
    answers.went("the context afterwards", &sticky);
    end(machine, mapped)
}

fn can_a_second_mapping_write_what_is_read_only(answers: &Answers) -> Done {
    let machine = machine();
    let raw = &machine.raw;
    let mapped = read_only(raw, answers)?;
    let again = mapped.again_in(raw);
    answers.went("second mapping", &again);
    if let Ok(again) = &again {
        answers.went("write through it", &raw.try_write(again.address(), &[2]));
        answers.note("first mapping reported", raw.access(mapped.address()).map_err(Skip)?);
    }
    contents(raw, &mapped, answers);
    std::mem::forget(again);
    end(machine, mapped)
}

/// Maps memory of a dead context in another one, wipes it there, and looks.
fn wipe_in(other: &Arc<Raw>, mapped: &Mapped, answers: &Answers) {
    answers.went("allocation in the other context", &other.try_alloc(4096));
    let again = mapped.again_in(other);
    answers.went("mapped there", &again);
    if let Ok(again) = again {
        let stream = other.stream();
        let wiped = other.fill(stream, again.address(), 0, again.len()).and_then(|()| other.synchronize(stream));
        answers.went("wiped there", &wiped);
        match other.try_read(again.address(), again.len()) {
            Ok(bytes) => answers.note("not zero afterwards", bytes.iter().filter(|byte| **byte != 0).count()),
            Err(code) => answers.note("not zero afterwards", format!("cannot be read: driver error {code}")),
        }
        std::mem::forget(again);
    }
}

fn after_a_fault_in_a_context_made_before(answers: &Answers) -> Done {
    let machine = machine();
    let other = machine.raw.second_context().map_err(Skip)?;
    let mapped = fault(&machine.raw, answers)?;
    wipe_in(&other, &mapped, answers);
    std::mem::forget(other);
    end(machine, mapped)
}

fn after_a_fault_in_a_context_made_after(answers: &Answers) -> Done {
    let machine = machine();
    let mapped = fault(&machine.raw, answers)?;
    let other = machine.raw.second_context();
    answers.went("second context", &other);
    if let Ok(other) = other {
        wipe_in(&other, &mapped, answers);
        std::mem::forget(other);
    }
    end(machine, mapped)
}

fn after_a_fault_and_a_reset(answers: &Answers) -> Done {
    let machine = machine();
    let raw = &machine.raw;
    let mapped = fault(raw, answers)?;
    answers.went("reset", &raw.reset_primary());
    let again = machine.open_again();
    answers.went("primary context", &again);
    if let Ok(again) = again {
        wipe_in(&again, &mapped, answers);
        std::mem::forget(again);
    }
    end(machine, mapped)
}

/// The context may be dead: nothing is given back, the process ends next.
fn end(machine: Machine, mapped: Mapped) -> Done {
    std::mem::forget((machine, mapped));
    Ok(())
}
