//! Questions that only a device can answer. The answers are printed, and nothing is asserted of them; a call that is refused where
//! no answer is, is the answer.

use std::sync::Arc;

use vram_residency_harness::{Access, Machine, Mapping, Raw, Refused};

use crate::bench::{everywhere, kernels, machine};

crate::cases! {
    everywhere:
        what_is_the_device,
        is_read_only_accepted_and_reported,
        does_a_copy_write_read_only_memory,
        does_a_fill_write_read_only_memory,
        can_a_second_mapping_write_what_is_read_only;
    kernels:
        does_a_kernel_write_read_only_memory,
        after_a_fault_in_a_context_made_before,
        after_a_fault_in_a_context_made_after,
        after_a_fault_and_a_reset
}

/// Prints how a call went, and gives what it gave.
fn went<T>(what: &str, result: Result<T, Refused>) -> Option<T> {
    match &result {
        Ok(_) => println!("{what}: accepted"),
        Err(refused) => println!("{what}: refused: {refused}"),
    }
    result.ok()
}

/// Asks about memory full of ones that is read-only, where the device maps such.
fn read_only(ask: impl FnOnce(&Machine, &Mapping)) {
    let machine = machine();
    let bytes = machine.granularity() as usize;
    let Some(mapped) = went("mapping", machine.raw.map(bytes)) else { return };
    machine.raw.write(mapped.address(), &vec![1; bytes]);
    if went("read-only", mapped.set_access(Access::Read)).is_some() {
        ask(&machine, &mapped);
        match machine.raw.try_read(mapped.address(), 1) {
            Ok(read) => println!("contents: {}", if read == [1] { "unchanged" } else { "changed" }),
            Err(refused) => println!("contents: cannot be read: {refused}"),
        }
    }
}

fn what_is_the_device() {
    let machine = machine();
    let raw = &machine.raw;
    let (free, total) = raw.memory_info();
    println!("device: {}, capability {}, driver {}", machine.kind().as_str(), raw.capability(), raw.driver_version());
    println!("bytes: {free} free of {total}");
    for (name, number) in [("clock_khz", 13), ("multiprocessors", 16), ("ecc", 32), ("l2_bytes", 38), ("virtual", 102)]
    {
        println!("{name}: {:?}", raw.attribute(number));
    }
}

fn is_read_only_accepted_and_reported() {
    read_only(|machine, mapped| {
        let raw = &machine.raw;
        if let Some(flags) = went("flags", raw.access(mapped.address())) {
            println!("reported: {}", if flags == 1 { "read-only".to_owned() } else { format!("flags {flags}") });
        }
        went("read", raw.try_read(mapped.address(), mapped.bytes()));
        went("back to read-write", mapped.set_access(Access::ReadWrite));
        went("write after that", raw.try_write(mapped.address(), &[2]));
    });
}

fn does_a_copy_write_read_only_memory() {
    read_only(|machine, mapped| {
        went("copy", machine.raw.try_write(mapped.address(), &[2; 4096]));
    });
}

fn does_a_fill_write_read_only_memory() {
    read_only(|machine, mapped| {
        let stream = machine.stream();
        went("fill", stream.try_fill(mapped.address(), 4096, 2));
        went("synchronize", stream.synchronize());
    });
}

fn can_a_second_mapping_write_what_is_read_only() {
    read_only(|machine, mapped| {
        if let Some(again) = went("second mapping", mapped.again_in(&machine.raw)) {
            went("write through it", machine.raw.try_write(again.address(), &[2]));
            println!("first mapping reported: {:?}", machine.raw.access(mapped.address()));
        }
    });
}

/// A kernel that writes where it may not.
fn fault(raw: &Arc<Raw>, mapped: &Mapping) {
    let (kernels, stream) = (raw.engine_kernels().unwrap(), raw.stream());
    went("launch", kernels.flip(stream, mapped.address(), 1));
    went("synchronize", raw.synchronize(stream));
}

fn does_a_kernel_write_read_only_memory() {
    read_only(|machine, mapped| {
        fault(&machine.raw, mapped);
        went("the context afterwards", machine.raw.try_alloc(4096));
    });
}

/// Maps memory of a dead context in another one, wipes it there, and looks.
fn wipe_in(other: &Arc<Raw>, mapped: &Mapping) {
    went("allocation in the other context", other.try_alloc(4096));
    let Some(again) = went("mapped there", mapped.again_in(other)) else { return };
    let stream = other.stream();
    went("wiped there", other.fill(stream, again.address(), 0, again.bytes()).and_then(|()| other.synchronize(stream)));
    match other.try_read(again.address(), again.bytes()) {
        Ok(bytes) => println!("not zero afterwards: {}", bytes.iter().filter(|byte| **byte != 0).count()),
        Err(refused) => println!("not zero afterwards: cannot be read: {refused}"),
    }
}

fn after_a_fault_in_a_context_made_before() {
    read_only(|machine, mapped| {
        let other = went("second context", machine.raw.second_context());
        fault(&machine.raw, mapped);
        other.iter().for_each(|other| wipe_in(other, mapped));
    });
}

fn after_a_fault_in_a_context_made_after() {
    read_only(|machine, mapped| {
        fault(&machine.raw, mapped);
        let other = went("second context", machine.raw.second_context());
        other.iter().for_each(|other| wipe_in(other, mapped));
    });
}

fn after_a_fault_and_a_reset() {
    read_only(|machine, mapped| {
        fault(&machine.raw, mapped);
        went("reset", machine.raw.reset_primary());
        let again = went("primary context", machine.open_again());
        again.iter().for_each(|again| wipe_in(again, mapped));
    });
}
