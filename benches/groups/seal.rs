//! Sealing, as the daemon timed it while the large store was filled, against writing as many bytes in order.

use std::time::Duration;

use super::Bench;
use crate::disk;
use crate::report::{Row, mebibytes, megabytes_per_second, millis, per_second};

pub fn run(bench: &mut Bench) {
    bench.prepare(false);
    let store = bench.large();
    let what = format!("events filled in meanwhile, batches of 100 at 8 connections ({} answers of 503)", store.filling.refused);
    let filling = Row::figure(what, per_second(store.filling_rate()));
    let rows = match store.seals {
        None => vec![Row::figure("seal", "not timed by the daemon")],
        Some(seals) => {
            let each = Duration::from_secs_f64(seals.seconds / seals.count);
            let bytes_each = seals.bytes / seals.count as u64;
            let limit = disk::sequential_rate(bench.root(), bytes_each);
            vec![
                Row::figure(format!("{} seals under load, mean time", seals.count), millis(each)),
                Row::figure("size of a sealed segment, mean", mebibytes(bytes_each)),
                Row::figure("sealed bytes (limit: one file, one fdatasync)", megabytes_per_second(seals.rate()))
                    .beside(megabytes_per_second(limit), seals.rate() / limit),
            ]
        }
    };
    for row in std::iter::once(filling).chain(rows) {
        bench.report.add(row);
    }
    bench.report.end_section("Seal");
}
