//! The top level of a Compose file and its resources.

use super::Fields;
use super::Shape::{
    self, Any, Bool, Empty, List, MapOf, Named, Object, OneOf, Set, StrictInt, Text,
};
use super::service::{KEY_VALUES, OPTIONS, SERVICE};

pub(super) static PROJECT: Shape = Object(&Fields {
    known: &[
        ("configs", &Named(&CONFIG)),
        ("include", &List(&INCLUDE)),
        ("models", &Named(&MODEL)),
        ("name", &Text),
        ("networks", &Named(&NETWORK)),
        ("secrets", &Named(&SECRET)),
        ("services", &Named(&SERVICE)),
        ("version", &Any),
        ("volumes", &Named(&VOLUME)),
    ],
    required: &[],
    extensions: true,
});

static EXTERNAL: Shape = OneOf(&[
    &Bool,
    &Object(&Fields {
        known: &[("name", &Text)],
        required: &[],
        extensions: true,
    }),
]);

static TEXT_OR_LIST: Shape = OneOf(&[&Text, &Set(&Text)]);

static INCLUDE: Shape = OneOf(&[
    &Text,
    &Object(&Fields {
        known: &[
            ("env_file", &TEXT_OR_LIST),
            ("path", &TEXT_OR_LIST),
            ("project_directory", &Text),
        ],
        required: &[],
        extensions: false,
    }),
]);

static NETWORK: Shape = OneOf(&[
    &Empty,
    &Object(&Fields {
        known: &[
            ("attachable", &Bool),
            ("driver", &Text),
            ("driver_opts", &OPTIONS),
            ("enable_ipv4", &Bool),
            ("enable_ipv6", &Bool),
            ("external", &EXTERNAL),
            ("internal", &Bool),
            ("ipam", &IPAM),
            ("labels", &KEY_VALUES),
            ("name", &Text),
        ],
        required: &[],
        extensions: true,
    }),
]);

static IPAM: Shape = Object(&Fields {
    known: &[
        (
            "config",
            &List(&Object(&Fields {
                known: &[
                    ("aux_addresses", &MapOf(&Text)),
                    ("gateway", &Text),
                    ("ip_range", &Text),
                    ("subnet", &Text),
                ],
                required: &[],
                extensions: true,
            })),
        ),
        ("driver", &Text),
        ("options", &MapOf(&Text)),
    ],
    required: &[],
    extensions: true,
});

static VOLUME: Shape = OneOf(&[
    &Empty,
    &Object(&Fields {
        known: &[
            ("driver", &Text),
            ("driver_opts", &OPTIONS),
            ("external", &EXTERNAL),
            ("labels", &KEY_VALUES),
            ("name", &Text),
        ],
        required: &[],
        extensions: true,
    }),
]);

static SECRET: Shape = Object(&Fields {
    known: &[
        ("driver", &Text),
        ("driver_opts", &OPTIONS),
        ("environment", &Text),
        ("external", &EXTERNAL),
        ("file", &Text),
        ("labels", &KEY_VALUES),
        ("name", &Text),
        ("template_driver", &Text),
    ],
    required: &[],
    extensions: true,
});

static CONFIG: Shape = Object(&Fields {
    known: &[
        ("content", &Text),
        ("environment", &Text),
        ("external", &EXTERNAL),
        ("file", &Text),
        ("labels", &KEY_VALUES),
        ("name", &Text),
        ("template_driver", &Text),
    ],
    required: &[],
    extensions: true,
});

static MODEL: Shape = Object(&Fields {
    known: &[
        ("context_size", &StrictInt),
        ("model", &Text),
        ("name", &Text),
        ("runtime_flags", &List(&Text)),
    ],
    required: &["model"],
    extensions: true,
});
