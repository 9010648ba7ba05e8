//! The device suite: what must hold on every device, on the one that `VRAM_TEST_DEVICE` names.

#![allow(missing_docs, unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

use vram_residency::{Policy, ShardId, ShardSource, ShardSpec, VramManager, WorkerId, WorkerSecret};
use vram_residency_rig::Machine;

#[test]
fn a_bit_flipped_through_another_mapping_is_refused() {
    // covers: VER-1
    let machine = Machine::from_env(256 << 20);
    let manager = VramManager::builder(WorkerId::new("suite").unwrap(), WorkerSecret::random().unwrap())
        .device(machine.selector())
        .policy(Policy::development())
        .headroom(0)
        .build()
        .unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let shard = manager.seal_model(ShardSpec::new(ShardId::new("a").unwrap()), ShardSource::bytes(&bytes)).unwrap();
    // SAFETY: the address is used behind the library's back on purpose.
    let address = manager.execute(&shard, |weights| unsafe { weights.regions()[0].device_ptr() }.as_u64()).unwrap();
    assert_eq!(machine.peek(&manager, address, bytes.len()), bytes);
    let alias = machine.gpu().map(|gpu| gpu.raw.alias(address).unwrap());
    machine.flip(&manager, address + 4711, 3);
    let error = manager.execute(&shard, |_| panic!("it ran")).unwrap_err();
    assert_eq!(error.code().as_str(), "SEAL_VERIFICATION_FAILED", "{error}");
    drop(manager.release(&shard));
    drop(manager);
    if let Some(alias) = alias {
        assert!(alias.read().iter().all(|byte| *byte == 0), "the alias still shows weights");
    }
    machine.assert_clean();
}
