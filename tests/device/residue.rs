//! What is left in device memory that others get: after a release of ours, after a plain free, and from other processes.
//!
//! Memory is filled with one number over and over; then everything that is free is allocated and searched for it by a kernel.
// covers: SCR-1

use vram_residency_harness::{EngineKernels, EngineStream, Kind, Machine, Memory};

use crate::bench::{Bench, gpu, kernels, machine};

crate::cases! {
    kernels:
        after_our_release,
        after_a_plain_free,
        after_a_plain_unmap;
    gpu:
        from_a_process_that_ended,
        from_a_process_that_ended_with_sealed_weights
}

/// Eight bytes that nobody else writes.
const MARK: u64 = 0x5ea1_ed00_c0ff_ee99;
/// Most and least bytes of one allocation of a search.
const MOST: usize = 1 << 30;
const LEAST: usize = 2 << 20;
/// Set for the process that leaves something behind.
const PLANT: &str = "VRAM_TEST_PLANT";

/// Bytes to leave behind.
fn amount() -> usize {
    if matches!(Kind::from_env(), Kind::Cuda(_)) { 1 << 30 } else { 8 << 20 }
}

fn marks() -> Vec<u8> {
    MARK.to_le_bytes().repeat(amount() / 8)
}

struct Search<'a> {
    machine: &'a Machine,
    kernels: EngineKernels,
    stream: EngineStream,
    counter: Memory,
}

impl<'a> Search<'a> {
    /// A search that has found what was there, and nothing where nothing was.
    fn new(machine: &'a Machine) -> Self {
        let (kernels, counter) = (machine.raw.engine_kernels().unwrap(), machine.alloc(256));
        let search = Self { machine, kernels, stream: machine.stream(), counter };
        let memory = machine.alloc(4 << 20);
        search.mark(memory.address(0), memory.len());
        assert_eq!(search.found(memory.address(0), memory.len()), memory.len(), "the search does not work");
        memory.write(0, &vec![0; memory.len()]);
        assert_eq!(search.found(memory.address(0), memory.len()), 0, "the search does not work");
        search
    }

    /// Writes the mark all over a span.
    fn mark(&self, address: u64, bytes: usize) {
        self.kernels.random(self.stream.handle(), address, bytes as u64, 0, MARK).unwrap();
        self.stream.synchronize().unwrap();
    }

    /// Bytes of marks in a span.
    fn found(&self, address: u64, bytes: usize) -> usize {
        self.counter.write(0, &[0; 8]);
        self.kernels.scan(self.stream.handle(), address, bytes as u64, MARK, self.counter.address(0)).unwrap();
        self.stream.synchronize().unwrap();
        u64::from_le_bytes(self.counter.read(0, 8).try_into().unwrap()) as usize * 8
    }

    /// Takes all free memory, counts bytes of marks in it, and gives it back.
    fn everywhere(&self) -> usize {
        let raw = &self.machine.raw;
        let mut left = raw.memory_info().0 as usize;
        let (mut held, mut piece, mut searched, mut found) = (Vec::new(), MOST, 0, 0);
        while piece >= LEAST {
            match raw.try_alloc(piece) {
                Ok(address) if left >= piece => {
                    held.push(address);
                    (left, searched) = (left - piece, searched + piece);
                    found += self.found(address, piece);
                    continue;
                }
                Ok(address) => raw.free(address),
                Err(_) => {}
            }
            piece /= 2;
        }
        held.into_iter().for_each(|address| raw.free(address));
        println!("{} bytes were left, {searched} searched, {found} found", amount());
        assert!(searched > 0, "nothing was free");
        found
    }
}

fn after_our_release() {
    let bench = Bench::new();
    let search = Search::new(&bench.machine);
    let shard = bench.seal("residue", &marks());
    assert_eq!(search.found(bench.address(&shard), amount()), amount(), "the marks are under seal");
    bench.manager.release(&shard).unwrap();
    assert_eq!(search.everywhere(), 0, "bytes of released weights in fresh memory");
    drop(search);
    let Bench { manager, sink: _, machine } = bench;
    drop(manager);
    assert_eq!(Search::new(&machine).everywhere(), 0, "bytes of released weights in fresh memory");
    machine.assert_clean();
}

/// What happens without us.
fn after_a_plain_free() {
    let machine = machine();
    let search = Search::new(&machine);
    let memory = machine.alloc(amount());
    search.mark(memory.address(0), amount());
    drop(memory);
    search.everywhere();
}

fn after_a_plain_unmap() {
    let machine = machine();
    let search = Search::new(&machine);
    let mapped = machine.raw.map(amount()).unwrap();
    search.mark(mapped.address(), amount());
    drop(mapped);
    search.everywhere();
}

/// Runs the case once more in a process that leaves something behind and ends without giving anything back.
fn from_another_process(case: &str, plant: fn()) {
    if std::env::var_os(PLANT).is_some() {
        plant();
        std::process::exit(0);
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let planted = command.args([&format!("residue::{case}"), "--exact"]).env(PLANT, "1").status().unwrap();
    assert!(planted.success(), "{planted}");
    Search::new(&machine()).everywhere();
}

fn from_a_process_that_ended() {
    from_another_process("from_a_process_that_ended", || {
        let machine = machine();
        Search::new(&machine).mark(machine.raw.alloc(amount()), amount());
        std::mem::forget(machine);
    });
}

fn from_a_process_that_ended_with_sealed_weights() {
    from_another_process("from_a_process_that_ended_with_sealed_weights", || {
        let bench = Bench::new();
        std::mem::forget((bench.seal("residue", &marks()), bench));
    });
}
