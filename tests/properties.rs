//! What holds for every input, through the public API: a thousand random cases each.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::{Rig, noise, refusals, spec, vouching};
use vram_residency::{
    ErrorCode, ExecuteOptions, Execution, ManagerState, OnIntegrityFailure, RefusalReason, SealedShard, ShardId,
    ShardSource, TreeParams, VramError, digest_bytes, digest_reader,
};

/// A thousand cases; what failed once is tried again first (`proptest-regressions/properties.txt`).
fn thousand() -> ProptestConfig {
    ProptestConfig {
        cases: 1000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/properties.txt"))),
        ..ProptestConfig::default()
    }
}

/// Every block size, with salts from none to the longest.
fn params() -> impl Strategy<Value = TreeParams> {
    (10_u32..=16, prop::sample::select(vec![0_usize, 1, 31, 32]))
        .prop_map(|(log, salt)| TreeParams::new(1 << log, &noise(salt, 9)).unwrap())
}

/// Lengths around the edges of blocks, and some between.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        1_usize..2100,
        (0_u32..5, 0_usize..40, 0_usize..3)
            .prop_map(|(log, blocks, off)| ((1024_usize << log) * blocks + off).saturating_sub(1).clamp(1, 70_000)),
    ]
}

thread_local! {
    static RIGS: RefCell<HashMap<TreeParams, Rig>> = RefCell::default();
}

/// Runs a case on a manager with this tree, which the cases of one property share: the known questions are asked once.
/// Leaves nothing behind.
fn on_rig<T>(params: &TreeParams, case: impl FnOnce(&Rig) -> T) -> T {
    RIGS.with_borrow_mut(|rigs| {
        let rig = rigs.entry(params.clone()).or_insert_with(|| {
            let params = params.clone();
            Rig::with(support::small(), move |b| {
                b.tree_params(params).on_integrity_failure(OnIntegrityFailure::QuarantineShard)
            })
        });
        let _ = rig.manager.release_by_id(&ShardId::new("case").unwrap());
        let result = case(rig);
        let _ = rig.manager.release_by_id(&ShardId::new("case").unwrap());
        let stats = rig.config.stats();
        assert_eq!((rig.manager.used_vram(), stats.live_bytes), (0, 0));
        assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0));
        result
    })
}

/// The manager that the cases of one property share, with one shard on it.
struct Shared {
    rig: Rig,
    shard: SealedShard,
    bytes: Vec<u8>,
}

fn shared(length: usize) -> Shared {
    let rig = Rig::lenient();
    let bytes = noise(length, 42);
    let shard = rig.seal("shared", &bytes);
    Shared { rig, shard, bytes }
}

static ARBITRARY: LazyLock<Shared> = LazyLock::new(|| shared(3000));
/// Seals that its manager has refused.
static REFUSED: AtomicU64 = AtomicU64::new(0);
static READ: LazyLock<Shared> = LazyLock::new(|| shared(3_000_001));
/// One execution for all reads: its check is not what they are about.
static READING: LazyLock<Execution<'static>> =
    LazyLock::new(|| READ.rig.manager.begin(&READ.shard, ExecuteOptions::default()).unwrap());
static MISMATCH: LazyLock<Rig> = LazyLock::new(Rig::new);
static REUSE: LazyLock<Rig> = LazyLock::new(Rig::lenient);
static ONE: LazyLock<Shared> = LazyLock::new(|| shared(2000));
static OTHER: LazyLock<Shared> = LazyLock::new(|| shared(2000));

/// Bytes that are nearly a seal, or nothing like one.
fn nearly_seals() -> impl Strategy<Value = Vec<u8>> {
    let genuine = || ARBITRARY.shard.to_bytes();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2100),
        edits.clone().prop_map(move |edits| {
            let mut bytes = genuine();
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes
        }),
        (edits, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            move |(edits, cut, more)| {
                let mut bytes = genuine();
                let (at, value) = (edits[0].0.index(bytes.len()), edits[0].1);
                bytes[at] ^= value;
                bytes.truncate(cut.index(bytes.len()));
                bytes.extend(more);
                bytes
            }
        ),
    ]
}

proptest! {
    #![proptest_config(thousand())]

    // covers: ASR-2 SEAL-3 SEAL-4
    #[test]
    fn verify_never_panics_and_accepts_only_the_genuine_seal(bytes in nearly_seals()) {
        let Shared { rig, shard, .. } = &*ARBITRARY;
        match SealedShard::from_bytes(&bytes) {
            Err(error) => {
                let malformed = matches!(error, VramError::SealRefused { reason: RefusalReason::Malformed });
                prop_assert!(malformed, "{error:?}");
            }
            Ok(seal) => {
                prop_assert_eq!(seal.to_bytes(), bytes.clone(), "one encoding");
                let genuine = bytes == shard.to_bytes();
                let answer = rig.manager.verify_sealed(&seal);
                prop_assert_eq!(answer.is_ok(), genuine, "{:?}", answer);
                if let Err(error) = answer {
                    REFUSED.fetch_add(1, Ordering::SeqCst);
                    prop_assert!(matches!(error, VramError::SealRefused { .. }), "{error:?}");
                }
            }
        }
        prop_assert_eq!(rig.manager.state(), ManagerState::Ready);
        // Refusals in quick succession share events, which say how many they speak of: of no more than there were.
        let (said, refused) = (refusals(&rig.sink.events()), REFUSED.load(Ordering::SeqCst));
        prop_assert!(said <= refused && (said > 0) == (refused > 0), "{said} in the trail, {refused} refused");
    }

    // covers: ASR-2 VER-1
    #[test]
    fn what_was_sealed_verifies(length in lengths(), params in params(), seed in any::<u64>(), expecting in any::<bool>()) {
        on_rig(&params, |rig| {
            let bytes = noise(length, seed);
            let vouched = digest_bytes(&params, &bytes);
            let spec = if expecting { spec("case").expect(vouching::file(rig.manager.tree_params(), vouched)) } else { spec("case") };
            let shard = rig.manager.seal_model(spec, ShardSource::bytes(&bytes)).unwrap();
            prop_assert_eq!((shard.byte_len(), shard.block_size()), (length as u64, params.block_size()));
            prop_assert_eq!(shard.salt(), params.salt());
            let back = SealedShard::from_bytes(&shard.to_bytes()).unwrap();
            let verification = rig.manager.verify_sealed(&back).unwrap();
            prop_assert_eq!(verification.digest, vouched);
            let read = rig.manager.execute(&shard, |verified| {
                let mut out = vec![0; length];
                verified.read_at(0, &mut out).map(|()| out)
            });
            prop_assert_eq!(read.unwrap().unwrap(), bytes);
            Ok(())
        })?;
    }

    // covers: ASR-2 VER-4 VER-5
    #[test]
    fn any_flip_is_refused_and_located(
        length in lengths(), params in params(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        on_rig(&params, |rig| {
            let shard = rig.seal("case", &noise(length, 7));
            let at = at.index(length) as u64;
            rig.flip_bit(&shard, at, bit);
            let (outcome, ran) = rig.execute(&shard);
            prop_assert!(!ran);
            match outcome {
                Err(VramError::IntegrityFailure { first_bad: Some(range), .. }) => {
                    prop_assert!(range.offset <= at && at < range.offset + range.bytes, "{range}");
                    prop_assert!(range.offset + range.bytes <= length as u64, "{range}");
                }
                other => prop_assert!(false, "{other:?}"),
            }
            rig.assert_recount();
            Ok(())
        })?;
    }

    // covers: ASR-2 DIG-1
    #[test]
    fn the_digest_is_one_on_device_and_host_and_every_time(length in lengths(), params in params(), seed in any::<u64>()) {
        on_rig(&params, |rig| {
            let bytes = noise(length, seed);
            let host = digest_bytes(&params, &bytes);
            // The stream's buffers are large and wiped each time: one in sixteen is enough of it.
            if seed % 16 == 0 {
                let streamed = digest_reader(&params, std::num::NonZeroUsize::MIN, &bytes[..]).unwrap();
                prop_assert_eq!(streamed, (host, length as u64));
            }
            let shard = rig.seal("case", &bytes);
            prop_assert_eq!(shard.digest(), host);
            for _ in 0..2 {
                prop_assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), host);
            }
            let mut other = bytes.clone();
            other[length / 2] ^= 1;
            prop_assert_ne!(digest_bytes(&params, &other), host);
            Ok(())
        })?;
    }

    // covers: ASR-2 VER-1
    #[test]
    fn reads_give_the_sources_bytes_or_are_refused(
        offset in 0_u64..3_000_100,
        length in prop_oneof![20 => 0_usize..5000, 1 => 1_000_000_usize..2_500_000],
        far in any::<u64>(),
    ) {
        let (bytes, run) = (&READ.bytes, &*READING);
        for (offset, length) in [(offset, length), (far, length), (0, 0), (bytes.len() as u64 - 1, 1)] {
            let mut out = vec![0xcc; length];
            let read = run.read_at(offset, &mut out);
            match usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(length)?)) {
                Some(wanted) => {
                    prop_assert!(read.is_ok(), "{offset} {length}: {read:?}");
                    prop_assert_eq!(&out[..], wanted);
                }
                None => {
                    prop_assert_eq!(read.unwrap_err().code(), ErrorCode::InvalidParams);
                    prop_assert!(out.iter().all(|byte| *byte == 0xcc), "a refused read writes nothing");
                }
            }
        }
    }

    // covers: ASR-2 SEAL-1 SEAL-9
    #[test]
    fn another_digest_than_the_expected_is_refused_and_leaves_nothing(
        length in lengths(), wrong in any::<[u8; 32]>(), at in any::<prop::sample::Index>(), near in any::<bool>(),
    ) {
        let rig = &*MISMATCH;
        let bytes = noise(length, 3);
        let mut expected = digest_bytes(rig.manager.tree_params(), &bytes);
        if near {
            // The digest of bytes that differ in one bit.
            let mut other = bytes.clone();
            other[at.index(length)] ^= 1;
            expected = digest_bytes(rig.manager.tree_params(), &other);
        } else if vram_residency::Digest::from_bytes(wrong) != expected {
            expected = vram_residency::Digest::from_bytes(wrong);
        }
        let used = rig.manager.used_vram();
        let error = rig.manager.seal_model(spec("x").expect(vouching::file(rig.manager.tree_params(), expected)), ShardSource::bytes(&bytes)).unwrap_err();
        prop_assert!(matches!(error, VramError::DigestMismatch { expected: named, .. } if named == expected), "{error:?}");
        prop_assert_eq!(rig.manager.used_vram(), used);
        rig.assert_recount();
        let stats = rig.config.stats();
        prop_assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0));
        prop_assert_eq!(rig.manager.state(), ManagerState::Ready);
    }

    // covers: ASR-2 SEAL-4 RES-8
    #[test]
    fn seals_of_one_manager_are_refused_by_another(length in 1_usize..3000, seed in any::<u64>()) {
        let (one, other) = (&*ONE, &*OTHER);
        let _ = one.rig.manager.release_by_id(&ShardId::new("guest").unwrap());
        let shard = one.rig.seal("guest", &noise(length, seed));
        one.rig.manager.verify_sealed(&shard).unwrap();
        for seal in [shard.clone(), SealedShard::from_bytes(&shard.to_bytes()).unwrap()] {
            let (outcome, ran) = other.rig.execute(&seal);
            prop_assert!(!ran);
            let refused = matches!(outcome, Err(VramError::SealRefused { reason: RefusalReason::ClaimsOtherDevice }));
            prop_assert!(refused, "{outcome:?}");
            prop_assert!(other.rig.manager.release(&seal).is_err());
        }
        prop_assert!(other.rig.execute(&other.shard).1 && other.bytes.len() == 2000);
    }

    // covers: ASR-2 SCR-1
    #[test]
    fn released_bytes_are_never_seen_again(length in lengths(), later in lengths()) {
        let rig = &*REUSE;
        let secret = vec![0x5a; length];
        let shard = rig.seal("secret", &secret);
        rig.manager.release(&shard).unwrap();
        prop_assert_eq!(rig.config.stats().unwiped_bytes_freed, 0);
        let fresh = rig.seal("later", &vec![0x11; later]);
        let mut out = vec![0; later];
        rig.manager.mock_controls().unwrap().peek(&fresh, 0, &mut out).unwrap();
        prop_assert!(out.iter().all(|byte| *byte == 0x11), "only its own bytes");
        rig.manager.release(&fresh).unwrap();
        prop_assert_eq!((rig.manager.used_vram(), rig.config.stats().live_bytes), (0, 0));
        prop_assert_eq!(rig.config.stats().unwiped_bytes_freed, 0);
    }

    // covers: ASR-2 RES-3 RES-4 RES-5 RES-6 RES-7 SCR-4
    #[test]
    fn the_ledger_equals_a_simple_model(
        steps in prop::collection::vec((0_u8..4, 0_usize..6, 1_usize..40_000), 1..30),
        headroom in 0_u64..60_000,
        granularity in (8_u32..13).prop_map(|log| 1_u64 << log),
    ) {
        let total = 200_000_u64;
        let config = support::small().capacity_bytes(total).granularity(granularity).poison(false);
        let rig = Rig::with(config, |b| b.headroom(headroom));
        let mut live: BTreeMap<usize, (SealedShard, u64)> = BTreeMap::new();
        let mut stale: Vec<SealedShard> = Vec::new();
        for (step, name, length) in steps {
            let used: u64 = live.values().map(|(_, room)| room).sum();
            let limit = total - headroom;
            match step {
                // Seals are twice as frequent as releases, so that it fills up.
                0 | 1 => {
                    // Image and check space, each in allocator units.
                    let blocks = (length as u64).div_ceil(1024);
                    let entries = blocks.div_ceil(32);
                    let check = (1 + entries) * 32 + blocks * 32 + 32; // the last for the list of one region
                    let room = (length as u64).next_multiple_of(granularity) + check.next_multiple_of(granularity);
                    let sealed = rig.try_seal(&format!("shard-{name}"), &noise(length, 1));
                    match sealed {
                        Ok(shard) => {
                            prop_assert!(!live.contains_key(&name) && used + room <= limit);
                            live.insert(name, (shard, room));
                        }
                        Err(error) if live.contains_key(&name) => {
                            prop_assert_eq!(error.code(), ErrorCode::InvalidParams);
                        }
                        Err(VramError::OutOfMemory { needed, available }) => {
                            prop_assert!(used + room > limit);
                            prop_assert_eq!((needed, available), (room, limit - used));
                        }
                        Err(error) => prop_assert!(false, "{error:?}"),
                    }
                }
                2 => match live.remove(&name) {
                    Some((shard, room)) => {
                        prop_assert_eq!(rig.manager.release(&shard).unwrap().bytes, room);
                        stale.push(shard);
                    }
                    None => {
                        let id = ShardId::new(format!("shard-{name}")).unwrap();
                        prop_assert_eq!(rig.manager.release_by_id(&id).unwrap_err().code(), ErrorCode::InvalidParams);
                    }
                },
                _ => {
                    for shard in &stale {
                        let refused = rig.manager.release(shard).unwrap_err();
                        prop_assert!(matches!(refused, VramError::StaleHandle { .. }), "{refused:?}");
                    }
                }
            }
            let used: u64 = live.values().map(|(_, room)| room).sum();
            prop_assert_eq!(rig.manager.used_vram(), used);
            prop_assert_eq!(rig.manager.available_vram(), limit - used);
            prop_assert_eq!((rig.manager.total_vram(), rig.config.stats().live_bytes), (total, used));
        }
        for (shard, _) in live.values() {
            rig.manager.verify_sealed(shard).unwrap();
        }
        rig.close_clean();
    }
}
