//! What a panic prints, in the form that `quintet` on the host looks for, and how the machine then ends.

use core::panic::PanicInfo;

use hal::boot::End;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    if hal::console::begin_panic() {
        hal::boot::stop_others();
        match info.location() {
            Some(at) => hal::console::print(format_args!(
                "\nQUINTET PANIC: {} at {}:{}:{}\n",
                info.message(),
                at.file(),
                at.line(),
                at.column()
            )),
            None => hal::console::print(format_args!("\nQUINTET PANIC: {}\n", info.message())),
        }
        let mut depth = 0;
        hal::boot::backtrace(|address| {
            hal::console::print(format_args!("  #{depth} {address:#018x}\n"));
            depth += 1;
        });
        hal::console::print(format_args!("QUINTET PANIC END\n"));
    }
    hal::boot::end(End::Panic)
}
