//! A device that fails, lies or dies.

use cucumber::{given, when};

use crate::faults;
use crate::world::World;

#[given(regex = r"^the device will (.+)$")]
#[when(regex = r"^the device will (.+)$")]
fn misbehave(world: &mut World, how: String) {
    world.dead |= faults::kills(&how);
    world.unwipeable |= faults::unwipeable(&how);
    faults::order(world.device(), &how);
}
