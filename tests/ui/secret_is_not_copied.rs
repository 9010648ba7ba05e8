//! A secret is neither cloned nor compared nor shown.
use vram_residency::WorkerSecret;

fn twice(secret: &WorkerSecret, other: &WorkerSecret) -> bool {
    let _copy: WorkerSecret = secret.clone();
    let _shown = secret.to_string();
    secret == other
}

fn main() {}
