//! The attributes of a service and what each may be.

use super::Shape::{
    self, Any, Bool, Duration, Empty, Form, Int, IntIn, List, MapOf, Named, Number, Object, OneOf,
    Scalar, ScalarOrEmpty, Set, Size, StrictBool, StrictNumber, Text, TextSize, Word,
};
use super::{Fields, is_name};
use crate::types::RestartPolicy;

/// A mapping with `x-*` keys allowed.
const fn open(known: &'static [(&'static str, &'static Shape)]) -> Fields {
    Fields {
        known,
        required: &[],
        extensions: true,
    }
}

/// A mapping with `x-*` keys allowed and keys that must be there.
const fn needing(
    required: &'static [&'static str],
    known: &'static [(&'static str, &'static Shape)],
) -> Fields {
    Fields {
        known,
        required,
        extensions: true,
    }
}

/// A mapping with exactly these keys.
const fn closed(
    required: &'static [&'static str],
    known: &'static [(&'static str, &'static Shape)],
) -> Fields {
    Fields {
        known,
        required,
        extensions: false,
    }
}

static TEXTS: Shape = Set(&Text);
static TEXT_LIST: Shape = List(&Text);
static TEXT_OR_LIST: Shape = OneOf(&[&Text, &TEXTS]);
pub(super) static KEY_VALUES: Shape = OneOf(&[&MapOf(&ScalarOrEmpty), &TEXTS]);
static HOSTS: Shape = OneOf(&[&MapOf(&OneOf(&[&Text, &TEXT_LIST])), &TEXTS]);
pub(super) static OPTIONS: Shape = MapOf(&Scalar);
static COMMAND: Shape = OneOf(&[&Empty, &Text, &TEXT_LIST]);
static ULIMITS: Shape = MapOf(&OneOf(&[
    &Int,
    &Object(&needing(
        &["soft", "hard"],
        &[("hard", &Int), ("soft", &Int)],
    )),
]));

pub(super) static SERVICE: Shape = Object(&open(&[
    ("annotations", &KEY_VALUES),
    ("attach", &Bool),
    ("blkio_config", &BLKIO),
    ("build", &BUILD),
    ("cap_add", &TEXTS),
    ("cap_drop", &TEXTS),
    ("cgroup", &Word(&["host", "private"])),
    ("cgroup_parent", &Text),
    ("command", &COMMAND),
    ("configs", &FILE_REFERENCES),
    ("container_name", &CONTAINER_NAME),
    ("cpu_count", &IntIn(0, i64::MAX)),
    ("cpu_percent", &Number),
    ("cpu_period", &Number),
    ("cpu_quota", &Number),
    ("cpu_rt_period", &Number),
    ("cpu_rt_runtime", &Number),
    ("cpu_shares", &Number),
    ("cpus", &Number),
    ("cpuset", &Text),
    (
        "credential_spec",
        &Object(&open(&[
            ("config", &Text),
            ("file", &Text),
            ("registry", &Text),
        ])),
    ),
    ("depends_on", &DEPENDS_ON),
    ("deploy", &DEPLOY),
    ("develop", &DEVELOP),
    ("device_cgroup_rules", &TEXTS),
    ("devices", &DEVICES),
    ("dns", &TEXT_OR_LIST),
    ("dns_opt", &TEXTS),
    ("dns_search", &TEXT_OR_LIST),
    ("domainname", &Text),
    ("entrypoint", &COMMAND),
    ("env_file", &ENV_FILE),
    ("environment", &KEY_VALUES),
    ("expose", &Set(&OneOf(&[&Text, &StrictNumber]))),
    ("extends", &EXTENDS),
    ("external_links", &TEXTS),
    ("extra_hosts", &HOSTS),
    ("gpus", &GPUS),
    ("group_add", &Set(&OneOf(&[&Text, &StrictNumber]))),
    ("healthcheck", &HEALTHCHECK),
    ("hostname", &Text),
    ("image", &Text),
    ("init", &Bool),
    ("ipc", &Text),
    ("isolation", &Text),
    ("label_file", &OneOf(&[&Text, &TEXT_LIST])),
    ("labels", &KEY_VALUES),
    ("links", &TEXTS),
    (
        "logging",
        &Object(&open(&[
            ("driver", &Text),
            ("options", &MapOf(&ScalarOrEmpty)),
        ])),
    ),
    ("mac_address", &Text),
    ("mem_limit", &Size),
    ("mem_reservation", &Size),
    ("mem_swappiness", &Int),
    ("memswap_limit", &Size),
    ("models", &MODELS),
    ("network_mode", &Text),
    ("networks", &NETWORKS),
    ("oom_kill_disable", &Bool),
    ("oom_score_adj", &IntIn(-1000, 1000)),
    ("pid", &OneOf(&[&Text, &Empty])),
    ("pids_limit", &Number),
    ("platform", &Text),
    ("ports", &PORTS),
    ("post_start", &List(&HOOK)),
    ("pre_start", &List(&PRE_START)),
    ("pre_stop", &List(&HOOK)),
    ("privileged", &Bool),
    ("profiles", &TEXTS),
    (
        "provider",
        &Object(&needing(
            &["type"],
            &[
                ("options", &MapOf(&OneOf(&[&Scalar, &List(&Scalar)]))),
                ("type", &Text),
            ],
        )),
    ),
    ("pull_policy", &PULL_POLICY),
    ("pull_refresh_after", &Duration),
    ("read_only", &Bool),
    ("restart", &RESTART),
    ("runtime", &Text),
    ("scale", &Int),
    ("secrets", &FILE_REFERENCES),
    ("security_opt", &TEXTS),
    ("shm_size", &Size),
    ("stdin_open", &Bool),
    ("stop_grace_period", &Duration),
    ("stop_signal", &Text),
    ("storage_opt", &MapOf(&Any)),
    ("sysctls", &KEY_VALUES),
    ("tmpfs", &TEXT_OR_LIST),
    ("tty", &Bool),
    ("ulimits", &ULIMITS),
    ("use_api_socket", &StrictBool),
    ("user", &Text),
    ("userns_mode", &Text),
    ("uts", &Text),
    ("volumes", &VOLUMES),
    ("volumes_from", &TEXTS),
    ("working_dir", &Text),
]));

static BUILD: Shape = OneOf(&[
    &Text,
    &Object(&open(&[
        ("additional_contexts", &KEY_VALUES),
        ("args", &KEY_VALUES),
        ("cache_from", &TEXT_LIST),
        ("cache_to", &TEXT_LIST),
        ("context", &Text),
        ("dockerfile", &Text),
        ("dockerfile_inline", &Text),
        ("entitlements", &TEXT_LIST),
        ("extra_hosts", &HOSTS),
        ("isolation", &Text),
        ("labels", &KEY_VALUES),
        ("network", &Text),
        ("no_cache", &Bool),
        ("no_cache_filter", &TEXT_OR_LIST),
        ("platforms", &TEXT_LIST),
        ("privileged", &Bool),
        ("provenance", &Bool),
        ("pull", &Bool),
        ("sbom", &Bool),
        ("secrets", &FILE_REFERENCES),
        ("shm_size", &Size),
        ("ssh", &KEY_VALUES),
        ("tags", &TEXT_LIST),
        ("target", &Text),
        ("ulimits", &ULIMITS),
    ])),
]);

static CONTAINER_NAME: Shape = Form(
    |text| {
        let mut chars = text.chars();
        text.len() >= 2 && chars.next().is_some_and(|c| c.is_ascii_alphanumeric()) && is_name(text)
    },
    "a letter or digit followed by letters, digits, `_`, `.` or `-`",
);

static RESTART: Shape = Form(
    |text| text.parse::<RestartPolicy>().is_ok(),
    "no, always, unless-stopped, on-failure or on-failure:N",
);

static PULL_POLICY: Shape = Form(
    |text| {
        matches!(
            text,
            "always"
                | "never"
                | "build"
                | "if_not_present"
                | "missing"
                | "refresh"
                | "daily"
                | "weekly"
        ) || text.starts_with("every_")
    },
    "always, never, missing, build, refresh, daily, weekly or every_ and a duration",
);

static DEPENDS_ON: Shape = OneOf(&[
    &TEXTS,
    &Named(&Object(&needing(
        &["condition"],
        &[
            (
                "condition",
                &Word(&[
                    "service_started",
                    "service_healthy",
                    "service_completed_successfully",
                ]),
            ),
            ("required", &StrictBool),
            ("restart", &Bool),
        ],
    ))),
]);

static BLKIO: Shape = Object(&closed(
    &[],
    &[
        ("device_read_bps", &List(&BLKIO_RATE)),
        ("device_read_iops", &List(&BLKIO_RATE)),
        ("device_write_bps", &List(&BLKIO_RATE)),
        ("device_write_iops", &List(&BLKIO_RATE)),
        ("weight", &Int),
        (
            "weight_device",
            &List(&Object(&closed(
                &["path"],
                &[("path", &Text), ("weight", &Int)],
            ))),
        ),
    ],
));

static BLKIO_RATE: Shape = Object(&closed(&["path"], &[("path", &Text), ("rate", &Size)]));

static DEVICES: Shape = List(&OneOf(&[
    &Text,
    &Object(&needing(
        &["source"],
        &[("permissions", &Text), ("source", &Text), ("target", &Text)],
    )),
]));

static ENV_FILE: Shape = OneOf(&[
    &Text,
    &List(&OneOf(&[
        &Text,
        &Object(&closed(
            &["path"],
            &[("format", &Text), ("path", &Text), ("required", &Bool)],
        )),
    ])),
]);

static EXTENDS: Shape = OneOf(&[
    &Text,
    &Object(&closed(
        &["service"],
        &[("file", &Text), ("service", &Text)],
    )),
]);

static DEVICE_REQUEST_FIELDS: &[(&str, &Shape)] = &[
    ("capabilities", &TEXTS),
    ("count", &Int),
    ("device_ids", &TEXTS),
    ("driver", &Text),
    ("options", &KEY_VALUES),
];

static GPUS: Shape = OneOf(&[
    &Word(&["all"]),
    &List(&Object(&open(DEVICE_REQUEST_FIELDS))),
]);

static HEALTHCHECK: Shape = Object(&open(&[
    ("disable", &Bool),
    ("interval", &Duration),
    ("retries", &Number),
    ("start_interval", &Duration),
    ("start_period", &Duration),
    ("test", &OneOf(&[&Text, &TEXT_LIST])),
    ("timeout", &Duration),
]));

static MODELS: Shape = OneOf(&[
    &TEXTS,
    &Named(&OneOf(&[
        &Object(&open(&[("endpoint_var", &Text), ("model_var", &Text)])),
        &Empty,
    ])),
]);

static NETWORKS: Shape = OneOf(&[
    &TEXTS,
    &Named(&OneOf(&[
        &Object(&open(&[
            ("aliases", &TEXTS),
            ("driver_opts", &OPTIONS),
            ("gw_priority", &StrictNumber),
            ("interface_name", &Text),
            ("ipv4_address", &Text),
            ("ipv6_address", &Text),
            ("link_local_ips", &TEXTS),
            ("mac_address", &Text),
            ("priority", &StrictNumber),
        ])),
        &Empty,
    ])),
]);

static PORTS: Shape = Set(&OneOf(&[
    &StrictNumber,
    &Text,
    &Object(&open(&[
        ("app_protocol", &Text),
        ("host_ip", &Text),
        ("mode", &Text),
        ("name", &Text),
        ("protocol", &Text),
        ("published", &Int),
        ("target", &Int),
    ])),
]));

static FILE_REFERENCES: Shape = List(&OneOf(&[
    &Text,
    &Object(&open(&[
        ("gid", &Text),
        ("mode", &Number),
        ("source", &Text),
        ("target", &Text),
        ("uid", &Text),
    ])),
]));

static VOLUMES: Shape = Set(&OneOf(&[
    &Text,
    &Object(&needing(
        &["type"],
        &[
            (
                "bind",
                &Object(&open(&[
                    ("create_host_path", &Bool),
                    ("propagation", &Text),
                    (
                        "recursive",
                        &Word(&["enabled", "disabled", "writable", "readonly"]),
                    ),
                    ("selinux", &Word(&["z", "Z"])),
                ])),
            ),
            ("consistency", &Text),
            ("image", &Object(&open(&[("subpath", &Text)]))),
            ("read_only", &Bool),
            ("source", &Text),
            ("target", &Text),
            (
                "tmpfs",
                &Object(&open(&[("mode", &Number), ("size", &Size)])),
            ),
            (
                "type",
                &Word(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
            ),
            (
                "volume",
                &Object(&open(&[
                    ("labels", &KEY_VALUES),
                    ("nocopy", &Bool),
                    ("subpath", &Text),
                ])),
            ),
        ],
    )),
]));

static HOOK_COMMAND: Shape = OneOf(&[&Text, &TEXT_LIST]);

static HOOK: Shape = Object(&needing(
    &["command"],
    &[
        ("command", &HOOK_COMMAND),
        ("environment", &KEY_VALUES),
        ("privileged", &Bool),
        ("user", &Text),
        ("working_dir", &Text),
    ],
));

static PRE_START: Shape = Object(&open(&[
    ("command", &COMMAND),
    ("environment", &KEY_VALUES),
    ("image", &Text),
    ("per_replica", &Bool),
    ("privileged", &Bool),
    ("user", &Text),
    ("working_dir", &Text),
]));

static DEVELOP: Shape = OneOf(&[
    &Empty,
    &Object(&open(&[(
        "watch",
        &List(&Object(&needing(
            &["path", "action"],
            &[
                (
                    "action",
                    &Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
                ),
                ("exec", &HOOK),
                ("ignore", &TEXT_OR_LIST),
                ("include", &TEXT_OR_LIST),
                ("initial_sync", &StrictBool),
                ("path", &Text),
                ("target", &Text),
            ],
        ))),
    )])),
]);

static UPDATE: Shape = Object(&open(&[
    ("delay", &Duration),
    ("failure_action", &Text),
    ("max_failure_ratio", &Number),
    ("monitor", &Duration),
    ("order", &Word(&["start-first", "stop-first"])),
    ("parallelism", &Int),
]));

static DEPLOY: Shape = OneOf(&[
    &Empty,
    &Object(&open(&[
        ("endpoint_mode", &Text),
        ("labels", &KEY_VALUES),
        ("mode", &Text),
        (
            "placement",
            &Object(&open(&[
                ("constraints", &TEXT_LIST),
                ("max_replicas_per_node", &Int),
                ("preferences", &List(&Object(&open(&[("spread", &Text)])))),
            ])),
        ),
        ("replicas", &Int),
        (
            "resources",
            &Object(&open(&[
                (
                    "limits",
                    &Object(&open(&[
                        ("cpus", &Number),
                        ("memory", &TextSize),
                        ("pids", &Int),
                    ])),
                ),
                (
                    "reservations",
                    &Object(&open(&[
                        ("cpus", &Number),
                        (
                            "devices",
                            &List(&Object(&needing(&["capabilities"], DEVICE_REQUEST_FIELDS))),
                        ),
                        (
                            "generic_resources",
                            &List(&Object(&open(&[(
                                "discrete_resource_spec",
                                &Object(&open(&[("kind", &Text), ("value", &Number)])),
                            )]))),
                        ),
                        ("memory", &TextSize),
                    ])),
                ),
            ])),
        ),
        (
            "restart_policy",
            &Object(&open(&[
                ("condition", &Text),
                ("delay", &Duration),
                ("max_attempts", &Int),
                ("window", &Duration),
            ])),
        ),
        ("rollback_config", &UPDATE),
        ("update_config", &UPDATE),
    ])),
]);
