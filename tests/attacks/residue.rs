//! What is left in device memory that others get: after a release of ours, after a plain free, and from other processes.
//!
//! Memory is filled with one number over and over; then everything that is free is allocated and searched for it by a kernel.

use std::sync::Arc;
use std::time::Duration;

use vram_residency::MemorySink;
use vram_residency_rig::{EngineKernels, Kind, Machine, Raw};

use crate::run::{Answers, CAPACITY, Case, Skip, in_a_process};
use crate::sealed::{manager, seal};

type Done = Result<(), Skip>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub static CASES: &[Case] = &[$(Case { name: stringify!($name), group: "residue", run: $name }),*];
    };
}

cases![
    after_our_release,
    after_a_plain_free,
    after_a_plain_unmap,
    from_a_process_that_ended,
    from_a_process_that_ended_with_sealed_weights,
];

/// A case that a child runs for another.
type Helper = (&'static str, fn(&Answers) -> Done);

pub static HELPERS: &[Helper] = &[("plant", plant), ("plant_sealed", plant_sealed)];

/// Eight bytes that nobody else writes.
const MARK: u64 = 0x5ea1_ed00_c0ff_ee99;
/// Most bytes of one allocation of a search.
const PIECE: u64 = 1 << 30;
/// Least.
const GRANULE: u64 = 2 << 20;

/// Bytes to leave behind.
fn amount() -> usize {
    if matches!(Kind::from_env(), Kind::Cuda(_)) { 1 << 30 } else { 8 << 20 }
}

fn machine() -> Machine {
    Machine::from_env(CAPACITY)
}

struct Search {
    raw: Arc<Raw>,
    kernels: EngineKernels,
    stream: usize,
}

impl Search {
    fn new(machine: &Machine) -> Result<Self, Skip> {
        let raw = Arc::clone(&machine.raw);
        let kernels = raw.engine_kernels();
        let kernels = kernels.ok_or_else(|| Skip("no engine kernels were built for this device".to_owned()))?;
        let stream = raw.stream();
        Ok(Self { raw, kernels, stream })
    }

    /// Writes the mark all over a span.
    fn mark(&self, address: u64, bytes: usize) {
        self.kernels.random(self.stream, address, bytes as u64, 0, MARK).unwrap();
        self.raw.synchronize(self.stream).unwrap();
    }

    /// Bytes of marks in a span.
    fn found(&self, address: u64, bytes: u64, counter: u64) -> u64 {
        self.raw.write(counter, &[0; 8]);
        self.kernels.scan(self.stream, address, bytes, MARK, counter).unwrap();
        self.raw.synchronize(self.stream).unwrap();
        u64::from_le_bytes(self.raw.read(counter, 8).try_into().unwrap()) * 8
    }

    /// Takes all free memory, counts bytes of marks in it, and gives it back.
    fn everywhere(&self, answers: &Answers) -> u64 {
        let counter = self.raw.alloc(256);
        let (mut left, _) = self.raw.memory_info();
        let (mut held, mut piece, mut searched, mut found) = (Vec::new(), PIECE, 0, 0);
        while piece >= GRANULE {
            match self.raw.try_alloc(piece as usize) {
                Ok(address) if left >= piece => {
                    held.push(address);
                    left -= piece;
                    searched += piece;
                    found += self.found(address, piece, counter);
                }
                Ok(address) => {
                    self.raw.free(address);
                    piece /= 2;
                }
                Err(_) => piece /= 2,
            }
        }
        held.into_iter().for_each(|address| self.raw.free(address));
        self.raw.free(counter);
        answers.note("searched_bytes", searched);
        answers.note("found_bytes", found);
        assert!(searched > 0, "nothing was free");
        found
    }

    /// The search finds what is there.
    fn control(&self) {
        let bytes = 4 << 20;
        let (address, counter) = (self.raw.alloc(bytes), self.raw.alloc(256));
        self.mark(address, bytes);
        assert_eq!(self.found(address, bytes as u64, counter), bytes as u64, "the search does not work");
        self.raw.write(address, &vec![0; bytes]);
        assert_eq!(self.found(address, bytes as u64, counter), 0, "the search does not work");
        self.raw.free(address);
        self.raw.free(counter);
    }
}

fn after_our_release(answers: &Answers) -> Done {
    let machine = machine();
    let search = Search::new(&machine)?;
    search.control();
    let manager = manager(&machine, &Arc::new(MemorySink::default()));
    let shard = seal(&manager, "residue", &MARK.to_le_bytes().repeat(amount() / 8));
    // SAFETY: read behind the library's back on purpose.
    let address = manager.execute(&shard, |weights| unsafe { weights.regions()[0].device_ptr() }.as_u64()).unwrap();
    let counter = search.raw.alloc(256);
    assert_eq!(search.found(address, amount() as u64, counter), amount() as u64, "the marks are under seal");
    search.raw.free(counter);
    answers.note("left_bytes", amount());
    manager.release(&shard).unwrap();
    let found = search.everywhere(answers);
    assert_eq!(found, 0, "bytes of released weights in fresh memory");
    drop(manager);
    assert_eq!(search.everywhere(answers), 0, "bytes of released weights in fresh memory");
    Ok(())
}

/// What happens without us.
fn after_a_plain_free(answers: &Answers) -> Done {
    let machine = machine();
    let search = Search::new(&machine)?;
    let address = search.raw.alloc(amount());
    search.mark(address, amount());
    search.raw.free(address);
    answers.note("left_bytes", amount());
    search.everywhere(answers);
    Ok(())
}

fn after_a_plain_unmap(answers: &Answers) -> Done {
    let machine = machine();
    let search = Search::new(&machine)?;
    let mapped = search.raw.map(amount()).map_err(Skip)?;
    search.mark(mapped.address(), amount());
    drop(mapped);
    answers.note("left_bytes", amount());
    search.everywhere(answers);
    Ok(())
}

fn from_another_process(helper: &str, answers: &Answers) -> Done {
    if Kind::from_env() == Kind::Mock {
        return Err(Skip("two processes on the mock share no memory".to_owned()));
    }
    let machine = machine();
    let ended = in_a_process(helper, Duration::from_secs(60));
    assert_eq!(ended.outcome, "done", "{}", ended.why);
    answers.note("left_bytes", amount());
    Search::new(&machine)?.everywhere(answers);
    Ok(())
}

fn from_a_process_that_ended(answers: &Answers) -> Done {
    from_another_process("plant", answers)
}

fn from_a_process_that_ended_with_sealed_weights(answers: &Answers) -> Done {
    from_another_process("plant_sealed", answers)
}

/// Leaves marks behind: the process ends without giving anything back.
fn plant(_: &Answers) -> Done {
    let machine = machine();
    let search = Search::new(&machine)?;
    search.mark(search.raw.alloc(amount()), amount());
    std::mem::forget((search, machine));
    Ok(())
}

fn plant_sealed(_: &Answers) -> Done {
    let machine = machine();
    let manager = manager(&machine, &Arc::new(MemorySink::default()));
    let shard = seal(&manager, "residue", &MARK.to_le_bytes().repeat(amount() / 8));
    std::mem::forget((shard, manager, machine));
    Ok(())
}
