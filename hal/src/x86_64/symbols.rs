//! What the linker script tells of the kernel image.

use core::ops::Range;

/// The parts of the image, as virtual addresses, page-aligned.
pub(super) struct Image {
    pub(super) text: Range<usize>,
    pub(super) rodata: Range<usize>,
    pub(super) data: Range<usize>,
}

mod linker {
    macro_rules! addresses {
        ($($function:ident = $symbol:ident;)*) => {
            unsafe extern "C" {
                $(static $symbol: u8;)*
            }
            $(pub(in super::super) fn $function() -> usize {
                (&raw const $symbol) as usize
            })*
        };
    }
    addresses! {
        text_start = __text_start;
        text_end = __text_end;
        rodata_start = __rodata_start;
        rodata_end = __rodata_end;
        data_start = __data_start;
        data_end = __data_end;
        fixups_start = __ex_table_start;
        fixups_end = __ex_table_end;
        trampoline = trampoline_start;
        trampoline_limit = trampoline_end;
    }
}

pub(super) use linker::{fixups_end, fixups_start, trampoline, trampoline_limit};

/// Where the image lies.
pub(super) fn image() -> Image {
    Image {
        text: linker::text_start()..linker::text_end(),
        rodata: linker::rodata_start()..linker::rodata_end(),
        data: linker::data_start()..linker::data_end(),
    }
}
