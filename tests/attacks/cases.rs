//! Attacks that must not lead to work on changed bytes.

use vram_residency::{ExecuteOptions, ManagerState, VramError};
use vram_residency_rig::Access;

use crate::run::{Answers, Case, Skip};
use crate::sealed::{Sealed, seal, weights};

type Done = Result<(), Skip>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub static CASES: &[Case] = &[$(Case { name: stringify!($name), group: "attack", run: $name }),*];
    };
}

cases![
    one_bit_through_another_mapping,
    another_stream_between_two_executes,
    a_kernel_through_another_mapping,
    a_kernel_at_the_sealed_address,
    a_kernel_at_a_read_only_address,
    a_copy_at_the_sealed_address,
    a_copy_from_a_second_context,
    a_mapping_in_a_second_context,
    two_shards_swapped,
    old_contents_restored,
    a_stray_write_during_an_execution,
    a_stray_write_during_an_execution_without_bracket,
];

/// A byte in the middle of a block in the middle of the shard.
const VICTIM: u64 = 123_457;

fn one_bit_through_another_mapping(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let at = sealed.address(&sealed.shard) + VICTIM;
    let (alias, there) = sealed.alias();
    alias.flip(at, 5);
    assert_eq!(sealed.now(there)[VICTIM as usize], sealed.bytes[VICTIM as usize] ^ 32);
    sealed.refuses(answers);
    Ok(())
}

fn another_stream_between_two_executes(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let address = sealed.address(&sealed.shard);
    let value = !sealed.bytes[VICTIM as usize];
    let (alias, there) = sealed.alias();
    let stream = sealed.machine.stream();
    stream.fill(there + VICTIM, 1, value);
    let fault = stream.synchronize().err();
    drop(alias);
    sealed.refuses_what_changed(address, answers, fault);
    Ok(())
}

/// Flips a bit by a kernel, and says what the device said.
fn by_kernel(sealed: &Sealed, address: u64, answers: &Answers) -> Result<Option<String>, Skip> {
    let kernels = sealed.machine.raw.engine_kernels();
    let kernels = kernels.ok_or_else(|| Skip("no engine kernels were built for this device".to_owned()))?;
    let raw = &sealed.machine.raw;
    let stream = raw.stream();
    let launched = kernels.flip(stream, address, 3);
    answers.went("launch", &launched);
    let done = launched.and_then(|()| raw.synchronize(stream));
    answers.went("kernel", &done);
    // A dead context takes nothing back.
    std::mem::forget(kernels);
    Ok(done.err().map(|code| format!("driver error {code}")))
}

fn a_kernel_through_another_mapping(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let (_alias, there) = sealed.alias();
    let fault = by_kernel(&sealed, there + VICTIM, answers)?;
    assert_eq!(fault, None, "a mapping of the attacker's own is writable");
    sealed.refuses(answers);
    Ok(())
}

fn a_kernel_at_the_sealed_address(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let address = sealed.address(&sealed.shard);
    let fault = by_kernel(&sealed, address + VICTIM, answers)?;
    sealed.refuses_what_changed(address, answers, fault);
    end(sealed)
}

/// Read-only whether the library has switched it or not.
fn a_kernel_at_a_read_only_address(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let address = sealed.address(&sealed.shard);
    let raw = &sealed.machine.raw;
    let (start, bytes) = raw.range(address);
    if !answers.went("read_only", &raw.set_access(start, bytes, Access::Read)) {
        return Err(Skip("the driver does not map memory read-only".to_owned()));
    }
    sealed.runs();
    let fault = by_kernel(&sealed, address + VICTIM, answers)?;
    sealed.refuses_what_changed(address, answers, fault);
    end(sealed)
}

fn a_copy_at_the_sealed_address(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let address = sealed.address(&sealed.shard);
    let write = sealed.machine.raw.try_write(address + VICTIM, &[!sealed.bytes[VICTIM as usize]]);
    answers.went("copy", &write);
    // A fault of the context shows in the next call.
    let fault = sealed.machine.raw.try_read(address, 1).err().map(|code| format!("driver error {code}"));
    sealed.refuses_what_changed(address, answers, fault);
    end(sealed)
}

fn a_copy_from_a_second_context(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let address = sealed.address(&sealed.shard);
    let second = sealed.machine.raw.second_context().map_err(Skip)?;
    let write = second.try_write(address + VICTIM, &[!sealed.bytes[VICTIM as usize]]);
    answers.went("copy", &write);
    let fault = sealed.machine.raw.try_read(address, 1).err().map(|code| format!("driver error {code}"));
    std::mem::forget(second);
    sealed.refuses_what_changed(address, answers, fault);
    end(sealed)
}

fn a_mapping_in_a_second_context(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let address = sealed.address(&sealed.shard);
    let second = sealed.machine.raw.second_context().map_err(Skip)?;
    let alias = second.alias(address);
    answers.went("mapping", &alias);
    if let Ok(alias) = &alias {
        let write = second.try_write(alias.of(address) + VICTIM, &[!sealed.bytes[VICTIM as usize]]);
        answers.went("copy", &write);
    }
    std::mem::forget(alias);
    std::mem::forget(second);
    sealed.refuses_what_changed(address, answers, None);
    end(sealed)
}

fn two_shards_swapped(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    let (one, two) = (sealed.address(&sealed.shard), sealed.address(&sealed.other));
    let (first, second) = (sealed.now(one), sealed.now(two));
    assert!(first == sealed.bytes && first != second);
    sealed.overwrite(one, &second);
    sealed.overwrite(two, &first);
    sealed.refuses(answers);
    Ok(())
}

fn old_contents_restored(answers: &Answers) -> Done {
    let mut sealed = Sealed::new();
    let old = sealed.now(sealed.address(&sealed.shard));
    sealed.manager.release(&sealed.shard).unwrap();
    sealed.bytes = weights(3);
    sealed.shard = seal(&sealed.manager, "attacked", &sealed.bytes);
    sealed.runs();
    sealed.overwrite(sealed.address(&sealed.shard), &old);
    sealed.refuses(answers);
    Ok(())
}

/// Begins an execution on a stream of the engine's own, writes on it, and finishes. The twin writes to the engine's own memory.
fn stray_write(sealed: &Sealed, bracket: bool, stray: bool, answers: &Answers) -> Option<VramError> {
    let (_alias, there) = sealed.alias();
    let own = sealed.machine.alloc(4096);
    let stream = sealed.machine.stream();
    // SAFETY: the stream belongs to the device and lives until the execution has ended.
    let options = unsafe { ExecuteOptions::default().verify_after(bracket).on_stream(stream.raw()) };
    let execution = sealed.manager.begin(&sealed.shard, options).unwrap();
    let value = !sealed.bytes[VICTIM as usize];
    if stray {
        stream.fill(there + VICTIM, 1, value);
    } else {
        stream.fill(own.address(0), 4096, value);
    }
    let finished = execution.finish();
    answers.went(if stray { "finish" } else { "finish without the write" }, &finished);
    stream.synchronize().unwrap();
    finished.err()
}

fn a_stray_write_during_an_execution(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    assert!(stray_write(&sealed, true, false, answers).is_none(), "the twin");
    let error = stray_write(&sealed, true, true, answers).expect("the result of a disturbed execution");
    assert_eq!(error.code().as_str(), "SEAL_VERIFICATION_FAILED", "{error}");
    assert!(matches!(sealed.manager.state(), ManagerState::Stopped(_)));
    sealed.executes_nothing();
    Ok(())
}

fn a_stray_write_during_an_execution_without_bracket(answers: &Answers) -> Done {
    let sealed = Sealed::new();
    assert!(stray_write(&sealed, false, false, answers).is_none(), "the twin");
    let _ = stray_write(&sealed, false, true, answers);
    sealed.refuses(answers);
    Ok(())
}

/// The context may be dead: nothing is given back, the process ends next.
fn end(sealed: Sealed) -> Done {
    std::mem::forget(sealed);
    Ok(())
}
