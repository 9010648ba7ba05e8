//! Engines on streams of their own: right results from verified weights, and neither checks nor wipes that overtake them.
// covers: VER-10

use std::time::Duration;

use vram_residency::{ErrorCode, SealedShard};
use vram_residency_harness::{EngineKernels, Memory};

use crate::bench::{Bench, Dice, adopt, everywhere, kernels, memory, on, spec, stopped};

crate::cases! {
    everywhere:
        a_late_write_to_adopted_memory_is_seen;
    kernels:
        a_product_over_owned_weights,
        a_product_over_adopted_weights,
        a_kernel_that_changes_adopted_weights_is_seen,
        release_waits_for_late_work,
        shutdown_waits_for_late_work,
        drop_waits_for_late_work
}

const ROWS: usize = 300;
const COLUMNS: usize = 257;
/// How long the engine's stream is kept busy.
const LATE: Duration = Duration::from_millis(100);

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut dice = Dice::new(seed);
    (0..count).map(|_| (dice.below(2001) as f32 - 1000.0) / 512.0).collect()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A product, as the kernel computes it: each row from left to right, with fused multiply-adds.
fn product(weights: &[f32], x: &[f32]) -> Vec<f32> {
    weights.chunks(x.len()).map(|row| row.iter().zip(x).fold(0.0, |sum, (weight, x)| weight.mul_add(*x, sum))).collect()
}

/// A layer, and what it gives for one input.
struct Layer {
    weights: Vec<u8>,
    x: std::sync::Arc<Memory>,
    y: std::sync::Arc<Memory>,
    expected: Vec<u8>,
    kernels: EngineKernels,
}

impl Layer {
    fn new(bench: &Bench) -> Self {
        let (weights, x) = (numbers(ROWS * COLUMNS, 1), numbers(COLUMNS, 2));
        let layer = Self {
            expected: bytes(&product(&weights, &x)),
            weights: bytes(&weights),
            x: memory(&bench.machine, &bytes(&x)),
            y: memory(&bench.machine, &[0xFF; 4 * ROWS]),
            kernels: bench.machine.raw.engine_kernels().unwrap(),
        };
        // A driver may load a kernel when it is first launched, and wait for all streams then.
        let stream = bench.stream();
        let handle = stream.handle();
        layer.kernels.spin(handle, 1).unwrap();
        let weights = memory(&bench.machine, &layer.weights);
        layer.kernels.flip(handle, weights.address(3), 6).unwrap();
        layer.enqueue(handle, weights.address(0));
        stream.synchronize().unwrap();
        assert!(layer.result() != layer.expected, "one bit of the weights made no difference");
        layer.y.write(0, &[0xFF; 4 * ROWS]);
        layer
    }

    fn enqueue(&self, stream: usize, weights: u64) {
        let (rows, columns) = (ROWS as u64, COLUMNS as u64);
        self.kernels.matvec(stream, weights, self.x.address(0), self.y.address(0), rows, columns).unwrap();
    }

    fn result(&self) -> Vec<u8> {
        self.y.read(0, self.y.len())
    }

    /// Runs the layer on a sealed or adopted shard.
    fn run(&self, bench: &Bench, shard: &SealedShard) {
        let stream = bench.stream();
        let run = bench.manager.begin(shard, on(&stream)).unwrap();
        // SAFETY: read by the stream that the execution waits for.
        let weights = unsafe { run.regions()[0].device_ptr() }.as_u64();
        self.enqueue(stream.handle(), weights);
        run.finish().unwrap();
        assert!(self.result() == self.expected, "another product than the host's");
    }
}

fn a_product_over_owned_weights() {
    let bench = Bench::new();
    let layer = Layer::new(&bench);
    let shard = bench.seal("layer", &layer.weights);
    layer.run(&bench, &shard);
    let address = bench.address(&shard);
    bench.flip(address + 1000, 6);
    let stream = bench.stream();
    let refused = bench.manager.begin(&shard, on(&stream)).map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SealVerificationFailed);
    assert!(stopped(&bench.manager));
    drop((stream, layer));
    bench.close();
}

fn a_product_over_adopted_weights() {
    // covers: RES-9
    let bench = Bench::new();
    let layer = Layer::new(&bench);
    let weights = memory(&bench.machine, &layer.weights);
    let adopted = adopt(&bench.manager, spec("layer"), &weights, &[(0, layer.weights.len())]).unwrap();
    layer.run(&bench, adopted.shard());
    weights.flip(4 * ROWS * COLUMNS - 1, 0);
    let stream = bench.stream();
    let refused = bench.manager.begin(adopted.shard(), on(&stream)).map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SealVerificationFailed);
    drop((stream, layer, adopted));
    bench.close();
}

/// The check of an execution runs behind what its stream holds, so it sees what that is still to write.
fn a_late_write_to_adopted_memory_is_seen() {
    let bench = Bench::new();
    let weights = memory(&bench.machine, &[7; 200_000]);
    let adopted = adopt(&bench.manager, spec("a"), &weights, &[(0, 200_000)]).unwrap();
    let stream = bench.stream();
    bench.manager.begin(adopted.shard(), on(&stream)).unwrap().finish().unwrap();
    // The same bytes again are no change.
    stream.fill(weights.address(0), 200_000, 7);
    bench.manager.begin(adopted.shard(), on(&stream)).unwrap().finish().unwrap();
    stream.fill(weights.address(123_456), 1, 8);
    let refused = bench.manager.begin(adopted.shard(), on(&stream)).map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SealVerificationFailed);
    drop(stream);
    drop(adopted);
    bench.close();
}

fn a_kernel_that_changes_adopted_weights_is_seen() {
    let bench = Bench::new();
    let layer = Layer::new(&bench);
    let weights = memory(&bench.machine, &layer.weights);
    let adopted = adopt(&bench.manager, spec("layer"), &weights, &[(0, layer.weights.len())]).unwrap();
    let stream = bench.stream();
    let handle = stream.handle();
    // There and back before the check.
    layer.kernels.spin(handle, LATE.as_nanos() as u64).unwrap();
    layer.kernels.flip(handle, weights.address(70_000), 3).unwrap();
    layer.kernels.flip(handle, weights.address(70_000), 3).unwrap();
    bench.manager.begin(adopted.shard(), on(&stream)).unwrap().finish().unwrap();
    layer.kernels.spin(handle, LATE.as_nanos() as u64).unwrap();
    layer.kernels.flip(handle, weights.address(70_000), 3).unwrap();
    let refused = bench.manager.begin(adopted.shard(), on(&stream)).map(drop).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SealVerificationFailed);
    drop((stream, layer, adopted));
    bench.close();
}

/// An execution that was dropped while its work still waits on the stream: the memory stays as it is until that is done.
fn late(end: impl FnOnce(Bench, &SealedShard) -> Bench) {
    let bench = Bench::new();
    let layer = Layer::new(&bench);
    let shard = bench.seal("layer", &layer.weights);
    let address = bench.address(&shard);
    let alias = bench.alias(address);
    let stream = bench.stream();
    let handle = stream.handle();
    let run = bench.manager.begin(&shard, on(&stream)).unwrap();
    layer.kernels.spin(handle, LATE.as_nanos() as u64).unwrap();
    layer.enqueue(handle, address);
    drop(run);
    assert_eq!(bench.manager.release(&shard).unwrap_err().code(), ErrorCode::ShardBusy, "the work has not run");
    let bench = end(bench, &shard);
    assert!(alias.read().iter().all(|byte| *byte == 0), "weights are left");
    assert!(layer.result() == layer.expected, "the weights were wiped under the engine's work");
    drop(alias);
    let Bench { manager, sink: _, machine } = bench;
    drop(manager);
    drop((stream, layer));
    machine.assert_clean();
}

fn release_waits_for_late_work() {
    // covers: VER-3
    late(|bench, shard| {
        while let Err(error) = bench.manager.release(shard) {
            assert_eq!(error.code(), ErrorCode::ShardBusy, "{error}");
            std::thread::sleep(Duration::from_millis(1));
        }
        bench
    });
}

fn shutdown_waits_for_late_work() {
    late(|bench, _| {
        let report = bench.manager.shutdown(Duration::from_secs(30));
        assert!(report.drained && report.busy_bytes == 0 && report.residue_bytes == 0, "{report:?}");
        bench
    });
}

fn drop_waits_for_late_work() {
    // covers: SCR-3
    late(|bench, _| {
        let Bench { manager, sink: _, machine } = bench;
        drop(manager);
        // A manager that does nothing takes its place.
        Bench::on(machine, |builder| builder)
    });
}
