//! Writes to sealed memory by every way that an attacker in the process has. A device may refuse such a write, or answer it with a
//! fault that ends its context; nothing ever executes on changed bytes.
// covers: VER-1 VER-2

use vram_residency::{ErrorCode, EventKind, ManagerState, SealedShard, Severity, StopReason};
use vram_residency_harness::{Access, Kind, Mapping, Refused};

use crate::bench::{Bench, everywhere, kernels, machine, noise, on};

crate::cases! {
    everywhere:
        a_stream_through_another_mapping,
        a_fill_at_the_sealed_address,
        a_copy_at_the_sealed_address,
        old_contents_restored,
        a_stray_write_during_an_execution;
    second_context:
        a_copy_from_a_second_context,
        a_mapping_in_a_second_context;
    kernels:
        a_kernel_through_another_mapping,
        a_kernel_at_the_sealed_address;
    read_only_kernels:
        a_kernel_at_a_read_only_address
}

fn second_context(_kind: Kind) -> Option<&'static str> {
    machine().raw.second_context().is_err().then_some("the driver lets no second context be made")
}

fn read_only_kernels(kind: Kind) -> Option<&'static str> {
    let machine = machine();
    let mapped = machine.raw.map(machine.granularity() as usize).and_then(|mapped| mapped.set_access(Access::Read));
    kernels(kind).or_else(|| mapped.is_err().then_some("the driver does not map memory read-only"))
}

const BYTES: usize = 300_000;
/// A byte in the middle of a block in the middle of the shard.
const VICTIM: usize = 123_457;

/// Two shards of one length under seal, both of which execute before the attack: the twin.
struct Sealed {
    bench: Bench,
    shard: SealedShard,
    other: SealedShard,
    bytes: Vec<u8>,
    address: u64,
}

impl Sealed {
    fn new() -> Self {
        let bench = Bench::new();
        let bytes = noise(BYTES, 1);
        let (shard, other) = (bench.seal("attacked", &bytes), bench.seal("other", &noise(BYTES, 2)));
        let address = bench.address(&shard);
        let sealed = Self { bench, shard, other, bytes, address };
        sealed.runs();
        sealed
    }

    fn victim(&self) -> u64 {
        self.address + VICTIM as u64
    }

    /// Another value than the sealed one.
    fn changed(&self) -> u8 {
        !self.bytes[VICTIM]
    }

    /// A second mapping, and where the byte is there.
    fn alias(&self) -> (Mapping, u64) {
        let alias = self.bench.alias(self.address);
        let there = alias.of(self.victim());
        (alias, there)
    }

    fn runs(&self) {
        self.bench.assert_good(&self.shard, &self.bytes);
        self.bench.assert_good(&self.other, &noise(BYTES, 2));
        assert_eq!(self.bench.manager.state(), ManagerState::Ready);
    }

    /// Flips a bit by a kernel.
    fn by_kernel(&self, address: u64) -> Result<(), Refused> {
        let kernels = self.bench.machine.raw.engine_kernels().unwrap();
        let stream = self.bench.stream();
        kernels.flip(stream.handle(), address, 3)?;
        stream.synchronize()
    }

    /// Nothing executes any more, and nothing did after the first critical event.
    fn executes_nothing(&self) {
        for shard in [&self.shard, &self.other] {
            assert!(self.bench.manager.execute(shard, |_| panic!("it ran after the attack")).is_err());
        }
        let events = self.bench.sink.events();
        let after = events.iter().skip_while(|event| event.kind.severity() != Severity::Critical);
        let names: Vec<_> = after.clone().map(|event| event.kind.name()).collect();
        assert!(!names.is_empty(), "no critical event");
        assert!(!after.clone().any(|event| matches!(event.kind, EventKind::ExecuteStarted { .. })), "{names:?}");
    }

    /// The bytes were changed: the next execute is refused, loudly.
    fn refuses(&self) {
        self.bench.assert_refused(&self.shard);
        assert_eq!(self.bench.manager.state(), ManagerState::Stopped(StopReason::IntegrityFailure));
        let events = self.bench.sink.events();
        for name in ["seal_verification_failed", "shard_quarantined", "manager_stopped"] {
            let critical = |event: &&vram_residency::AuditEvent| event.kind.severity() == Severity::Critical;
            assert!(events.iter().filter(critical).any(|event| event.kind.name() == name), "no critical event {name}");
        }
        self.executes_nothing();
    }

    /// After a write that the device may have refused, or answered with a fault that shows in the next call.
    fn refuses_what_changed(self, what: &str, write: Result<(), Refused>) {
        println!("{what}: {}", write.map_or_else(|refused| format!("refused: {refused}"), |()| "accepted".to_owned()));
        if self.bench.machine.raw.is_dead() {
            println!("device: a fault that ended its context");
            let refused = self.bench.manager.execute(&self.shard, |_| panic!("it ran on a dead context")).unwrap_err();
            assert!(matches!(self.bench.manager.state(), ManagerState::Stopped(_)), "{refused}");
            return self.executes_nothing();
        }
        if self.bench.peek(self.address, BYTES) == self.bytes {
            println!("device: nothing changed");
            self.runs();
        } else {
            println!("device: let the write happen");
            self.refuses();
        }
        self.bench.close();
    }
}

fn a_stream_through_another_mapping() {
    let sealed = Sealed::new();
    let (alias, there) = sealed.alias();
    let stream = sealed.bench.stream();
    stream.fill(there, 1, sealed.changed());
    stream.synchronize().unwrap();
    drop((stream, alias));
    sealed.refuses();
    sealed.bench.close();
}

fn a_kernel_through_another_mapping() {
    let sealed = Sealed::new();
    let (alias, there) = sealed.alias();
    sealed.by_kernel(there).unwrap();
    drop(alias);
    sealed.refuses();
    sealed.bench.close();
}

fn a_kernel_at_the_sealed_address() {
    let sealed = Sealed::new();
    let write = sealed.by_kernel(sealed.victim());
    sealed.refuses_what_changed("kernel", write);
}

/// Read-only whether the library has switched it or not.
fn a_kernel_at_a_read_only_address() {
    let sealed = Sealed::new();
    let raw = &sealed.bench.machine.raw;
    let (start, bytes) = raw.range(sealed.address).unwrap();
    raw.set_access(start, bytes, Access::Read).unwrap();
    sealed.runs();
    let write = sealed.by_kernel(sealed.victim());
    sealed.refuses_what_changed("kernel", write);
}

/// By the stream that the next check follows.
fn a_fill_at_the_sealed_address() {
    let sealed = Sealed::new();
    let stream = sealed.bench.stream();
    let write = stream.try_fill(sealed.victim(), 100, sealed.changed());
    let begun = sealed.bench.manager.begin(&sealed.shard, on(&stream)).map(drop);
    drop(stream);
    assert!(write.is_err() || begun.is_err(), "the check overtook the stream");
    if begun.is_err_and(|error| error.code() == ErrorCode::SealVerificationFailed) {
        sealed.executes_nothing();
        return sealed.bench.close();
    }
    sealed.refuses_what_changed("fill", write);
}

fn a_copy_at_the_sealed_address() {
    let sealed = Sealed::new();
    let write = sealed.bench.machine.raw.try_write(sealed.victim(), &[sealed.changed()]);
    sealed.refuses_what_changed("copy", write);
}

fn a_copy_from_a_second_context() {
    let sealed = Sealed::new();
    let second = sealed.bench.machine.raw.second_context().unwrap();
    let write = second.try_write(sealed.victim(), &[sealed.changed()]);
    drop(second);
    sealed.refuses_what_changed("copy", write);
}

fn a_mapping_in_a_second_context() {
    let sealed = Sealed::new();
    let second = sealed.bench.machine.raw.second_context().unwrap();
    let write = second.alias(sealed.address).and_then(|alias| {
        println!("mapping: accepted");
        second.try_write(alias.of(sealed.victim()), &[sealed.changed()])
    });
    drop(second);
    sealed.refuses_what_changed("mapping and copy", write);
}

fn old_contents_restored() {
    let mut sealed = Sealed::new();
    let old = sealed.bytes.clone();
    sealed.bench.manager.release(&sealed.shard).unwrap();
    sealed.bytes = noise(BYTES, 3);
    sealed.shard = sealed.bench.seal("attacked", &sealed.bytes);
    sealed.runs();
    sealed.bench.machine.tamper(sealed.bench.address(&sealed.shard), &old);
    sealed.refuses();
    sealed.bench.close();
}

/// Work on the engine's stream, enqueued while the weights are in use: the bracket's check runs behind it, and so does the next one.
fn a_stray_write_during_an_execution() {
    // covers: VER-6
    for bracket in [true, false] {
        let sealed = Sealed::new();
        let (alias, there) = sealed.alias();
        let own = sealed.bench.machine.alloc(4096);
        let stream = sealed.bench.stream();
        let run = |at, bytes| {
            let options = on(&stream).verify_after(bracket);
            let run = sealed.bench.manager.begin(&sealed.shard, options).unwrap();
            stream.fill(at, bytes, sealed.changed());
            run.finish().map_err(|error| error.code())
        };
        run(own.address(0), own.len()).unwrap();
        let disturbed = run(there, 1);
        if bracket {
            assert_eq!(disturbed.unwrap_err(), ErrorCode::SealVerificationFailed);
            assert!(matches!(sealed.bench.manager.state(), ManagerState::Stopped(_)));
            sealed.executes_nothing();
        } else {
            sealed.refuses();
        }
        drop((stream, own, alias));
        sealed.bench.close();
    }
}
