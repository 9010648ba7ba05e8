//! The steps that a history is made of.

use super::*;

/// One step of a history. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Seal(usize),
    Adopt(usize, bool),
    Verify(u8),
    Flip(u8),
    Begin(u8, bool),
    BeginAll(u8, u8),
    Finish(u8),
    Renew(u8),
    Abandon(u8),
    Reseal(u8),
    /// The second is whether by its name.
    Release(u8, bool),
    Scratch(u64),
    DropScratch(u8),
    Stale(u8),
    Posture,
    Fault(MockCall, u64),
    Shutdown,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..3000).prop_map(Step::Seal),
        3 => (1_usize..3000, any::<bool>()).prop_map(|(bytes, wipe)| Step::Adopt(bytes, wipe)),
        3 => any::<u8>().prop_map(Step::Verify),
        2 => any::<u8>().prop_map(Step::Flip),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(at, bracket)| Step::Begin(at, bracket)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(one, two)| Step::BeginAll(one, two)),
        4 => any::<u8>().prop_map(Step::Finish),
        3 => any::<u8>().prop_map(Step::Renew),
        1 => any::<u8>().prop_map(Step::Abandon),
        3 => any::<u8>().prop_map(Step::Reseal),
        4 => (any::<u8>(), prop::bool::weighted(0.25)).prop_map(|(at, by_id)| Step::Release(at, by_id)),
        2 => (1_u64..3000).prop_map(Step::Scratch),
        1 => any::<u8>().prop_map(Step::DropScratch),
        2 => any::<u8>().prop_map(Step::Stale),
        1 => Just(Step::Posture),
        2 => (
            prop_oneof![
                call(),
                prop::sample::select(vec![MockCall::Fill, MockCall::CountNonzero, MockCall::Synchronize, MockCall::Event]),
            ],
            1_u64..12,
        ).prop_map(|(call, nth)| Step::Fault(call, nth)),
        1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Step::Shutdown } else { Step::Posture }),
    ]
}
