//! What a small root is enough for: three machines that ping each other and fetch files.

use super::Options;
use super::machine::Machine;
use crate::Failure;

/// Sizes around every boundary: nothing, a time stamp's, a full frame's, one byte more, several fragments, the greatest.
const SIZES_V4: &[u32] = &[0, 8, 56, 1471, 1472, 1473, 2952, 8000, 65507];
const SIZES_V6: &[u32] = &[0, 8, 56, 1451, 1452, 1453, 2904, 8000, 65487];

/// Three machines: pings from each to each, and a file from the first to both others at once.
pub(super) fn play(machines: &mut [Machine], _: &Options) -> Result<(), Failure> {
    pings(machines)?;
    let [server, clients @ ..] = machines else { return Ok(()) };
    server.ask("mkdir /www && head -c 8000000 /dev/urandom > /www/file && httpd -h /www", 20)?;
    let sum = server.ask("md5sum < /www/file", 20)?;
    for (address, number) in [("10.5.0.1", 1), ("[fd05::1]", 2)] {
        for client in clients.iter_mut() {
            let fetched =
                client.ask(&format!("wget -q -O /tmp/{number} http://{address}/file; md5sum < /tmp/{number}"), 60)?;
            if fetched != sum {
                return Err(format!("{}: the file from {address} has the sum {fetched}, not {sum}", client.name));
            }
        }
    }
    Ok(())
}

/// Every size from every machine to every other, by both protocols.
pub(super) fn pings(machines: &mut [Machine]) -> Result<(), Failure> {
    for from in 0..machines.len() {
        for to in (1..=machines.len()).filter(|to| *to != from + 1) {
            let list = |sizes: &[u32]| sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            machines[from].ask(
                &format!(
                    "for size in {}; do ping -c 1 -W 5 -s $size 10.5.0.{to} || exit 1; done; \
                     for size in {}; do ping -6 -c 1 -W 5 -s $size fd05::{to} || exit 1; done",
                    list(SIZES_V4),
                    list(SIZES_V6)
                ),
                60,
            )?;
        }
    }
    Ok(())
}
