//! Embeds pairs of sentences on sealed weights, then lets one bit of them flip.

use std::path::PathBuf;
use std::time::Instant;

use candle_minilm::{Failure, Sealed, a_weight_that_matters, cosine, manager};
use vram_residency::VramError;

const PAIRS: [(&str, &str); 4] = [
    ("A man is playing a guitar.", "A man is playing a guitar."),
    ("A man is playing a guitar.", "Someone plays the guitar."),
    ("The company published its results.", "The firm reported its earnings."),
    ("A man is playing a guitar.", "The stock market fell sharply today."),
];

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(".models/minilm"), PathBuf::from);
    let manager = manager()?;
    let sealed = Sealed::load(&manager, &folder)?;
    println!("device  {} (host memory, protects nothing)", manager.device_name());
    println!("sealed  {} tensors, {} bytes", sealed.layout().tensors().len(), sealed.shard().byte_len());
    println!("digest  {}\n", sealed.shard().digest());

    let began = Instant::now();
    println!("cosine  each sentence is embedded in an execution of its own");
    for (left, right) in PAIRS {
        println!("{:6.3}  {left}  |  {right}", cosine(&sealed.embed(left)?, &sealed.embed(right)?));
    }
    println!("        {} executions in {:.2} s\n", PAIRS.len().saturating_mul(2), began.elapsed().as_secs_f64());

    let (byte, bit) = a_weight_that_matters(sealed.layout())?;
    manager.mock_controls().ok_or("this is no mock device")?.flip_bit(sealed.shard(), byte, bit)?;
    println!("bit {bit} of byte {byte} has flipped");
    match sealed.embed(PAIRS[0].0) {
        Err(refused) if matches!(refused.downcast_ref(), Some(VramError::IntegrityFailure { .. })) => {
            println!("the next execution was refused: {refused}");
        }
        Err(other) => return Err(other),
        Ok(_) => return Err("an execution ran on changed weights".into()),
    }
    sealed.release()?;
    println!("released: {} bytes are under seal", manager.adopted_vram());
    Ok(())
}
