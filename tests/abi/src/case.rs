//! What a case is, and the macros that cases are written with.

/// A named test.
pub(crate) struct Case {
    /// The module it is in.
    pub(crate) theme: &'static str,
    /// The function's name.
    pub(crate) name: &'static str,
    /// The test itself: passes if it returns.
    pub(crate) run: fn(),
}

/// Defines cases and the list `CASES` of them.
macro_rules! cases {
    ($($(#[$note:meta])* fn $name:ident() $body:block)*) => {
        $($(#[$note])* fn $name() $body)*

        /// The cases of this theme.
        pub(crate) const CASES: &[crate::case::Case] = &[
            $(crate::case::Case { theme: module_path!(), name: stringify!($name), run: $name }),*
        ];
    };
}

/// The result of a C library call that has to succeed.
macro_rules! ok {
    ($call:expr) => {{
        // Safe enough here: a case that passes bad pointers tests just that.
        #[allow(unused_unsafe)]
        let result = unsafe { $call };
        if result as i64 == -1 {
            panic!("{}: {}", stringify!($call), std::io::Error::last_os_error());
        }
        result
    }};
}

/// Checks that a C library call fails with this error number.
macro_rules! err {
    ($call:expr, $errno:expr) => {{
        #[allow(unused_unsafe)]
        let result = unsafe { $call };
        let errno = std::io::Error::last_os_error();
        assert_eq!(result as i64, -1, "{} succeeded", stringify!($call));
        let expected = std::io::Error::from_raw_os_error($errno);
        assert_eq!(
            errno.raw_os_error(),
            expected.raw_os_error(),
            "{}: {errno} instead of {expected}",
            stringify!($call)
        );
    }};
}
