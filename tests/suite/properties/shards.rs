//! What holds for every seal, every length, every tree and every order of seals and releases.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::*;

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

/// A manager with one shard, for the cases of one property.
static SEALED: LazyLock<(Rig, SealedShard)> = LazyLock::new(|| {
    let rig = Rig::lenient();
    let shard = rig.seal("shared", &noise(3000, 42));
    (rig, shard)
});

/// Bytes that are nearly a seal, or nothing like one.
fn nearly_seals() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let cut = prop::option::of((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40)));
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..2100),
        3 => (edits, cut).prop_map(|(edits, cut)| {
            let mut bytes = SEALED.1.to_bytes();
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some((cut, more)) = cut {
                bytes.truncate(cut.index(bytes.len()));
                bytes.extend(more);
            }
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(thousand())]

    // covers: ASR-2 SEAL-3 SEAL-4
    #[test]
    fn verify_never_panics_and_accepts_only_the_genuine_seal(bytes in nearly_seals()) {
        let (rig, shard) = &*SEALED;
        match SealedShard::from_bytes(&bytes) {
            Err(VramError::SealRefused { reason: RefusalReason::Malformed }) => {}
            Err(error) => prop_assert!(false, "{error:?}"),
            Ok(seal) => {
                prop_assert_eq!(seal.to_bytes(), bytes.clone(), "one encoding");
                let (answer, genuine) = (rig.manager.verify_sealed(&seal), bytes == shard.to_bytes());
                let right = if genuine { answer.is_ok() } else { matches!(answer, Err(VramError::SealRefused { .. })) };
                prop_assert!(right, "{answer:?}");
            }
        }
        prop_assert_eq!(rig.manager.state(), ManagerState::Ready);
    }

    // covers: ASR-2 VER-1 VER-4 VER-5 DIG-1 SEAL-9
    #[test]
    fn what_was_sealed_verifies_reads_and_is_refused_after_any_flip(
        length in lengths(), params in params(), seed in any::<u64>(), vouched in any::<bool>(),
        (from, most) in (0_u64..80_000, 0_usize..80_000), (at, bit) in (any::<prop::sample::Index>(), 0_u8..8),
    ) {
        RIGS.with_borrow_mut(|rigs| {
            // The cases share a manager for each tree: the known questions are asked once.
            let (lenient, tree) = (OnIntegrityFailure::QuarantineShard, params.clone());
            let fresh = || Rig::with(small(), |b| b.tree_params(tree).on_integrity_failure(lenient));
            let rig = rigs.entry(params.clone()).or_insert_with(fresh);
            let bytes = noise(length, seed);
            let spec = if vouched { rig.vouched("case", &bytes) } else { spec("case") };
            let shard = rig.manager.seal_model(spec, ShardSource::bytes(&bytes)).unwrap();
            let digest = digest_bytes(&params, &bytes);
            prop_assert_eq!((shard.digest(), shard.byte_len()), (digest, length as u64));
            prop_assert_eq!((shard.block_size(), shard.salt()), (params.block_size(), params.salt()));
            prop_assert_eq!(shard.origin(), if vouched { Origin::Expected } else { Origin::Measured });
            let back = SealedShard::from_bytes(&shard.to_bytes()).unwrap();
            prop_assert_eq!(rig.manager.verify_sealed(&back).unwrap().digest, digest);
            prop_assert_eq!(rig.manager.compute_vram_digest(&shard).unwrap(), digest);
            let run = rig.begin(&shard);
            for (from, most) in [(0, length), (from, most), (length as u64 - 1, 1), (u64::MAX - from, most + 1)] {
                let mut out = vec![0xcc; most];
                let read = run.read_at(from, &mut out);
                match usize::try_from(from).ok().and_then(|from| bytes.get(from..from.checked_add(most)?)) {
                    Some(wanted) => prop_assert!(read.is_ok() && out == wanted, "{from} {most}: {read:?}"),
                    None => {
                        prop_assert_eq!(read.unwrap_err().code(), ErrorCode::InvalidParams);
                        prop_assert!(out.iter().all(|byte| *byte == 0xcc), "a refused read writes nothing");
                    }
                }
            }
            run.finish().unwrap();
            let at = at.index(length) as u64;
            rig.flip_bit(&shard, at, bit);
            prop_assert_ne!(rig.manager.compute_vram_digest(&shard).unwrap(), digest);
            match rig.execute(&shard) {
                (Err(VramError::IntegrityFailure { first_bad: Some(range), .. }), false) => {
                    prop_assert!((range.offset..range.offset + range.bytes).contains(&at), "{range}");
                    prop_assert!(range.offset + range.bytes <= length as u64, "{range}");
                }
                other => prop_assert!(false, "{other:?}"),
            }
            rig.manager.release(&shard).unwrap();
            let stats = rig.config.stats();
            prop_assert_eq!((rig.manager.used_vram(), stats.live_bytes), (0, 0));
            prop_assert_eq!((stats.unwiped_bytes_freed, stats.unwiped_host_bytes_freed), (0, 0));
            Ok(())
        })?;
    }

    // covers: ASR-2 SCR-1
    #[test]
    fn released_bytes_are_never_seen_again(length in lengths(), later in lengths()) {
        on_rig(small(), |rig| {
            let shard = rig.seal("secret", &vec![0x5a; length]);
            rig.manager.release(&shard).unwrap();
            prop_assert_eq!(rig.config.stats().unwiped_bytes_freed, 0);
            let fresh = rig.seal("later", &vec![0x11; later]);
            let mut out = vec![0; later];
            rig.controls().peek(&fresh, 0, &mut out).unwrap();
            prop_assert!(out.iter().all(|byte| *byte == 0x11), "only its own bytes");
            rig.manager.release(&fresh).unwrap();
            Ok(())
        })?;
    }

    // covers: ASR-2 RES-3 RES-4 RES-5 RES-6 RES-7 SCR-4
    #[test]
    fn the_ledger_equals_a_simple_model(
        steps in prop::collection::vec((0_u8..4, 0_usize..6, 1_usize..40_000), 1..30),
        headroom in 0_u64..60_000,
        granularity in (8_u32..13).prop_map(|log| 1_u64 << log),
    ) {
        let total = 200_000_u64;
        let limit = total - headroom;
        let config = small().capacity_bytes(total).granularity(granularity).poison(false);
        let rig = Rig::with(config, |b| b.headroom(headroom));
        let mut live: BTreeMap<usize, (SealedShard, u64)> = BTreeMap::new();
        let mut stale: Vec<SealedShard> = Vec::new();
        let sum = |live: &BTreeMap<usize, (SealedShard, u64)>| live.values().map(|(_, room)| room).sum::<u64>();
        for (step, name, length) in steps {
            let used = sum(&live);
            match step {
                // Seals are twice as frequent as releases, so that it fills up.
                0 | 1 => {
                    // Image and check space, each in allocator units.
                    let check = check_bytes(length as u64, 1024);
                    let room = (length as u64).next_multiple_of(granularity) + check.next_multiple_of(granularity);
                    match rig.try_seal(&format!("shard-{name}"), &noise(length, 1)) {
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
                        let refused = rig.manager.release(shard);
                        prop_assert!(matches!(refused, Err(VramError::StaleHandle { .. })), "{refused:?}");
                    }
                }
            }
            let used = sum(&live);
            prop_assert_eq!((rig.manager.used_vram(), rig.manager.available_vram()), (used, limit - used));
            prop_assert_eq!((rig.manager.total_vram(), rig.config.stats().live_bytes), (total, used));
        }
        for (shard, _) in live.values() {
            rig.manager.verify_sealed(shard).unwrap();
        }
        rig.close_clean();
    }
}
