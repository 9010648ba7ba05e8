//! What the suites cannot order in time.

use std::sync::Arc;

use super::*;
use crate::driver::mock::MockConfig;
use crate::source::ShardSource;
use crate::spec::ShardSpec;

#[test]
fn who_shares_a_digest_forgets_no_weaker_check_since() {
    // covers: VER-13
    let manager = crate::manager::tests::manager(&MockConfig::new().capacity_bytes(64 << 20), &Arc::default());
    let spec = ShardSpec::new(ShardId::new("a").unwrap());
    let shard = manager.seal_model(spec, ShardSource::bytes(&[7; 100])).unwrap();
    let (inner, started) = (&manager.inner, Instant::now());
    let record = inner.admit(&shard).unwrap();
    let call = record.tick();
    for check in [Check::Digest, Check::Keyed, Check::Keyed, Check::Keyed] {
        inner.check(&record, check, None).unwrap(); // the first keyed one enrols beside a digest
    }
    let shared = Digesting::launch(inner, &record, call, Check::Digest, None).unwrap().collect();
    assert!(matches!(shared, Digested::Shared(Check::Digest)));
    inner.judge(&record, shared, started).unwrap();
    assert_eq!(record.weaker.load(Ordering::Relaxed), 2);
}
