//! Boot order.

use hal::boot::BootInfo;

hal::entry!(main);

fn main(info: &BootInfo) -> ! {
    log::info!("Quintet on {} processors: {}", info.cpus, info.command_line);
    hal::boot::end(hal::boot::End::PowerOff)
}
