//! The model of a project as it travels: resolved, without what only the place where it was written has (builds, env
//! files, profiles), with paths that are relative to where the bundle is unpacked; and the files it takes along.
//!
//! ```text
//!   <project directory>/conf/app.conf  →  ./project/conf/app.conf
//!   /etc/shared/app.conf               →  ./outside/1/app.conf       (configs, and secrets when they travel)
//!   /var/run/some.sock                 →  stays: the site has its own (bind mounts)
//! ```
//! Pure: no file is looked at. Names that the project gave its networks and volumes by default are left to be given
//! again, so that the bundle can be brought up under another project name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use compose_model::{Dollars, MountType, Project, value_to_yaml};
use serde_json::Value;

use super::BundleError;
use super::lock::LeftOut;

/// What goes along besides configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// Secrets: files and the values of variables.
    pub secrets: bool,
    /// Files and directories of the project that are bind-mounted.
    pub binds: bool,
}

/// A project ready to travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portable {
    /// The model, YAML.
    pub model: String,
    /// Image of each service, as the model names it.
    pub services: BTreeMap<String, String>,
    /// All images, those of image mounts too.
    pub images: BTreeSet<String>,
    /// Files and directories that go along.
    pub wanted: Vec<Wanted>,
    /// Files that never go along, though a directory that does may contain them.
    pub excluded: BTreeSet<PathBuf>,
    /// Values of secrets from variables that go along.
    pub variables: BTreeMap<String, String>,
    /// Variables that secrets come from and that do not go along.
    pub hidden: BTreeSet<String>,
    /// What the site must have by itself.
    pub left_out: Vec<LeftOut>,
}

/// A file or directory that goes along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `config app`, `secret token`, `bind mount of service web`.
    pub what: String,
    /// Where it is here.
    pub path: PathBuf,
    /// Where it is in the bundle, below `muster/`; the directory itself is `project`.
    pub place: String,
    /// It is bind-mounted: containers may write to it.
    pub bind: bool,
}

/// The project as it travels.
///
/// # Errors
/// For paths that are not UTF-8, and for secrets that should travel and are not there.
pub fn portable(project: &Project, carry: Carry) -> Result<Portable, BundleError> {
    let mut packing = Packing {
        root: &project.working_dir,
        carry,
        outside: BTreeMap::new(),
        portable: Portable::default(),
    };
    let mut model = project.clone();
    packing.configs(&mut model, project);
    packing.secrets(&mut model, project)?;
    packing.volumes(&mut model);
    packing.services(&mut model);
    let mut portable = packing.portable;
    portable.left_out.sort();
    portable.left_out.dedup();
    portable.model = value_to_yaml(unnamed(&project.name, model.to_value()), Dollars::Escape);
    Ok(portable)
}

struct Packing<'a> {
    root: &'a Path,
    carry: Carry,
    outside: BTreeMap<PathBuf, String>,
    portable: Portable,
}

impl Packing<'_> {
    fn configs(&mut self, model: &mut Project, project: &Project) {
        for (key, config) in &mut model.configs {
            if let Some(path) = &mut config.file {
                let place = self.place(Path::new(path));
                self.want(format!("config {key}"), path, &place, false);
                *path = format!("./{place}");
            } else if let Some(value) = config
                .environment
                .as_ref()
                .and_then(|variable| project.environment.get(variable))
            {
                config.content = Some(value.clone());
                config.environment = None;
            }
        }
    }

    fn secrets(&mut self, model: &mut Project, project: &Project) -> Result<(), BundleError> {
        for (key, secret) in &mut model.secrets {
            let what = format!("secret {key}");
            if let Some(path) = &mut secret.file {
                let below = self.below(Path::new(path));
                if self.carry.secrets {
                    let place = self.place(Path::new(path));
                    self.want(what, path, &place, false);
                    *path = format!("./{place}");
                    continue;
                }
                self.portable.excluded.insert(PathBuf::from(&*path));
                if let Some(place) = below {
                    *path = format!("./{place}");
                }
                self.leave_out(what, path);
            } else if let Some(variable) = &secret.environment {
                let value = project.environment.get(variable);
                match (self.carry.secrets, value) {
                    (true, Some(value)) => {
                        let variables = &mut self.portable.variables;
                        variables.insert(variable.clone(), value.clone());
                    }
                    (true, None) => {
                        return Err(BundleError::Unsuited(format!(
                            "{what} comes from the variable {variable}, which is not set: set it, or leave secrets out"
                        )));
                    }
                    (false, _) => {
                        self.portable.hidden.insert(variable.clone());
                        self.leave_out(what, &format!("${variable}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Volumes that are directories of the host.
    fn volumes(&mut self, model: &mut Project) {
        for (key, volume) in &mut model.volumes {
            let bind = volume.driver.as_deref() == Some("local")
                && volume.driver_opts.get("o").is_some_and(|o| o == "bind");
            if let (true, Some(device)) = (bind, volume.driver_opts.get_mut("device")) {
                self.bind(format!("directory of volume {key}"), device);
            }
        }
    }

    fn services(&mut self, model: &mut Project) {
        let names: BTreeSet<String> = model.services.keys().cloned().collect();
        for (name, service) in &mut model.services {
            service.depends_on.retain(|other, _| names.contains(other));
            service.profiles.clear();
            service.env_file.clear();
            service.label_file.clear();
            service.develop = None;
            service.pull_policy = None;
            service.pull_refresh_after = None;
            if service.provider.is_none() {
                let image = service.image_or_default(&model.name, name);
                self.portable.images.insert(image.clone());
                self.portable.services.insert(name.clone(), image.clone());
                service.image = Some(image);
            }
            service.build = None;
            let hooks = service.pre_start.iter();
            self.portable
                .images
                .extend(hooks.filter_map(|hook| hook.image.clone()));
            for volume in &mut service.volumes {
                let Some(source) = &mut volume.source else {
                    continue;
                };
                match volume.r#type {
                    MountType::Bind => self.bind(format!("bind mount of service {name}"), source),
                    MountType::Image => {
                        self.portable.images.insert(source.clone());
                    }
                    _ => {}
                }
            }
        }
    }

    /// A directory or file of the host: the project's goes along when asked for, another one is the site's own.
    fn bind(&mut self, what: String, path: &mut String) {
        let Some(place) = self.below(Path::new(path)) else {
            self.leave_out(what, path);
            return;
        };
        match self.carry.binds {
            true => self.want(what, path, &place, true),
            false => self.leave_out(what, &format!("./{place}")),
        }
        *path = format!("./{place}");
    }

    fn want(&mut self, what: String, path: &str, place: &str, bind: bool) {
        let wanted = Wanted {
            what,
            path: PathBuf::from(path),
            place: place.to_owned(),
            bind,
        };
        let known = |other: &Wanted| other.path == wanted.path && other.place == wanted.place;
        if !self.portable.wanted.iter().any(known) {
            self.portable.wanted.push(wanted);
        }
    }

    fn leave_out(&mut self, what: String, place: &str) {
        let place = place.to_owned();
        self.portable.left_out.push(LeftOut { what, place });
    }

    /// `project/…` for what lies below the project directory.
    fn below(&self, path: &Path) -> Option<String> {
        let rest = path.strip_prefix(self.root).ok()?;
        Some(match rest.as_os_str().is_empty() {
            true => "project".to_owned(),
            false => format!("project/{}", rest.display()),
        })
    }

    fn place(&mut self, path: &Path) -> String {
        if let Some(place) = self.below(path) {
            return place;
        }
        let next = self.outside.len() + 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let place = self.outside.entry(path.to_owned());
        place
            .or_insert_with(|| format!("outside/{next}/{name}"))
            .clone()
    }
}

/// Drops the names that follow from the project's name.
fn unnamed(project: &str, mut model: Value) -> Value {
    for kind in ["networks", "volumes", "configs", "secrets"] {
        let Some(parts) = model.get_mut(kind).and_then(Value::as_object_mut) else {
            continue;
        };
        for (key, part) in parts {
            let default = format!("{project}_{key}");
            if let Some(part) = part.as_object_mut()
                && part.get("external").and_then(Value::as_bool) != Some(true)
                && part.get("name").and_then(Value::as_str) == Some(&*default)
            {
                part.shift_remove("name");
            }
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn project() -> Project {
        let mut project: Project = serde_json::from_value(json!({
            "name": "shop",
            "services": {
                "web": {
                    "build": {"context": "/src/shop/web"},
                    "profiles": ["all"],
                    "environment": {"PRICE": "5 $ each"},
                    "depends_on": {
                        "db": {"condition": "service_started"},
                        "gone": {"condition": "service_started", "required": false},
                    },
                    "configs": [{"source": "app"}, {"source": "far"}, {"source": "inline"}],
                    "secrets": [{"source": "token"}, {"source": "key"}],
                    "networks": {"default": null},
                    "volumes": [
                        {"type": "bind", "source": "/src/shop/html", "target": "/html", "bind": {}},
                        {"type": "bind", "source": "/var/run/x.sock", "target": "/x", "bind": {}},
                        {"type": "volume", "source": "data", "target": "/data"},
                        {"type": "image", "source": "tools:1", "target": "/tools"},
                    ],
                },
                "db": {"image": "redis:7", "pull_policy": "always", "networks": {"default": null}},
            },
            "networks": {"default": {"name": "shop_default"}, "front": {"name": "front"}},
            "volumes": {"data": {"name": "shop_data"}},
            "configs": {
                "app": {"name": "shop_app", "file": "/src/shop/conf/app.conf"},
                "far": {"name": "shop_far", "file": "/etc/far.conf"},
                "inline": {"name": "shop_inline", "environment": "INLINE"},
            },
            "secrets": {
                "token": {"name": "shop_token", "file": "/src/shop/token"},
                "key": {"name": "shop_key", "environment": "KEY"},
            },
        }))
        .unwrap();
        project.working_dir = "/src/shop".into();
        project.environment = BTreeMap::from([
            ("INLINE".to_owned(), "a=1".to_owned()),
            ("KEY".to_owned(), "hush".to_owned()),
        ]);
        project
    }

    #[test]
    fn the_model_is_what_the_site_needs() {
        let portable = portable(&project(), Carry::default()).unwrap();
        let expected = "\
name: shop
services:
  db:
    image: redis:7
    networks:
      default: null
  web:
    configs:
      - source: app
      - source: far
      - source: inline
    depends_on:
      db:
        condition: service_started
        required: true
    environment:
      PRICE: 5 $$ each
    image: shop-web
    networks:
      default: null
    secrets:
      - source: token
      - source: key
    volumes:
      - type: bind
        source: ./project/html
        target: /html
        bind:
          create_host_path: true
      - type: bind
        source: /var/run/x.sock
        target: /x
        bind:
          create_host_path: true
      - type: volume
        source: data
        target: /data
      - type: image
        source: tools:1
        target: /tools
networks:
  default: {}
  front:
    name: front
volumes:
  data: {}
secrets:
  key:
    environment: KEY
  token:
    file: ./project/token
configs:
  app:
    file: ./project/conf/app.conf
  far:
    file: ./outside/1/far.conf
  inline:
    content: a=1
";
        assert_eq!(portable.model, expected, "{}", portable.model);
    }

    #[test]
    fn secrets_and_bind_mounts_stay_unless_asked_for() {
        let without = portable(&project(), Carry::default()).unwrap();
        let places = |portable: &Portable| -> Vec<String> {
            portable
                .wanted
                .iter()
                .map(|wanted| wanted.place.clone())
                .collect()
        };
        assert_eq!(
            places(&without),
            ["project/conf/app.conf", "outside/1/far.conf"]
        );
        let left: Vec<&str> = without
            .left_out
            .iter()
            .map(|left| left.place.as_str())
            .collect();
        assert_eq!(
            left,
            [
                "./project/html",
                "/var/run/x.sock",
                "$KEY",
                "./project/token"
            ]
        );
        assert_eq!(
            without.excluded,
            BTreeSet::from([PathBuf::from("/src/shop/token")])
        );
        assert_eq!(without.hidden, BTreeSet::from(["KEY".to_owned()]));
        assert!(without.variables.is_empty());

        let carry = Carry {
            secrets: true,
            binds: true,
        };
        let with = portable(&project(), carry).unwrap();
        assert_eq!(
            places(&with),
            [
                "project/conf/app.conf",
                "outside/1/far.conf",
                "project/token",
                "project/html"
            ]
        );
        assert_eq!(with.variables["KEY"], "hush");
        assert!(with.excluded.is_empty() && with.hidden.is_empty());
        assert_eq!(with.left_out.len(), 1, "{:?}", with.left_out);
        let mut unset = project();
        unset.environment.remove("KEY");
        let message = portable(&unset, carry).unwrap_err().to_string();
        assert!(message.contains("KEY"), "{message}");
    }

    #[test]
    fn images_are_those_of_services_and_of_mounts() {
        let portable = portable(&project(), Carry::default()).unwrap();
        assert_eq!(
            portable.images.iter().collect::<Vec<_>>(),
            ["redis:7", "shop-web", "tools:1"]
        );
        assert_eq!(portable.services["web"], "shop-web");
    }
}
