//! The keyed hash of an image in memory against `sha2` and against a plain read, on one thread, in turns: other load takes from all
//! alike. `ci/deep.sh bench` runs it, on one core and in a build with optimisation; no public call reaches the hash by itself.

use std::hint::black_box;
use std::time::Instant;

use super::*;

/// Keeps the compiler from leaving out what is measured.
fn seconds<T>(work: impl Fn() -> T) -> f64 {
    let start = Instant::now();
    let _ = black_box(work());
    start.elapsed().as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "measures time in a build with optimisation, over 1 GiB; ci/deep.sh bench"]
fn a_core_hashes_nearly_as_fast_as_it_reads() {
    for (bytes, rounds) in [(64 << 20, 31), (1 << 30, 9)] {
        let (keys, image) = (keys(0), noise(1, bytes));
        let keyed = || {
            let mut stream = KeyedStream::new(&keys, NonZeroUsize::MIN);
            stream.update(black_box(&image));
            stream.finish()
        };
        let sum = |sum: u64, word: &[u8; 8]| sum.wrapping_add(u64::from_le_bytes(*word));
        let read = || black_box(&image).as_chunks().0.iter().fold(0, sum);
        let sha2 = || Sha256::digest(black_box(&image));
        let took: Vec<[f64; 3]> = (0..rounds).map(|_| [seconds(keyed), seconds(read), seconds(sha2)]).collect();
        let rate = |of: usize| median(took.iter().map(|took| bytes as f64 / took[of] / 1e9));
        let ratio = |of: usize| median(took.iter().map(|took| took[of] / took[0]));
        let (of_read, of_sha2) = (ratio(1), ratio(2));
        println!(
            "{:4} MiB: {:.2} GB/s, {of_read:.2} × a read ({:.2} GB/s), {of_sha2:.2} × sha2 ({:.2} GB/s)",
            bytes >> 20,
            rate(0),
            rate(1),
            rate(2)
        );
        assert!(of_read >= 0.6 && of_sha2 >= 4.0, "below 0.6 × a read, or below 4 × sha2");
    }
}
