//! Where a new node's files go, and its configuration: written, or completed where there is one. What a configuration
//! says already must never be changed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use guantong_gateway::division::Division;
use toml::{Table, Value};

use crate::identity::dial::check_endpoint;
use crate::identity::{AuthorityScope, IdentityFiles, SpiffeId, TrustDomain};

/// The places of a new node.
#[derive(Debug)]
pub(super) struct Place {
    /// The configuration.
    pub(super) config: PathBuf,
    dir: PathBuf,
    listen: Option<String>,
    /// What the configuration says already, and as what text.
    known: Table,
    pub(super) text: String,
}

impl Place {
    /// Looks at what is there.
    pub(super) fn find(dir: PathBuf, config: PathBuf, listen: Option<String>) -> anyhow::Result<Place> {
        if let Some(listen) = &listen {
            check_endpoint(listen).context("--listen")?;
        }
        let dir = std::path::absolute(dir).context("--out")?;
        let text = match std::fs::read_to_string(&config) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| config.display().to_string()),
        };
        let known: Table = toml::from_str(&text).with_context(|| config.display().to_string())?;
        Ok(Place { config, dir, listen, known, text })
    }

    /// The files of the identity: where the configuration has them, else in the directory.
    pub(super) fn files(&self) -> IdentityFiles {
        let tls = self.known.get("tls").and_then(Value::as_table);
        let path = |key: &str, name: &str| {
            let said = tls.and_then(|tls| tls.get(key)).and_then(Value::as_str);
            said.map_or_else(|| self.dir.join(name), PathBuf::from)
        };
        IdentityFiles {
            certificate: path("certificate", "certificate.pem"),
            key: path("key", "key.pem"),
            authority: path("authority", "authority.pem"),
            revocations: Some(path("revocation_list", "revocations.pem")),
            authority_scope: AuthorityScope::default(),
        }
    }

    /// Makes the directories of all files; new ones are closed to other users.
    pub(super) fn make_dirs(&self) -> anyhow::Result<()> {
        let files = self.files();
        let paths = [Some(&self.config), Some(&files.key), Some(&files.certificate), Some(&files.authority)];
        let dirs = paths.into_iter().flatten().chain(&files.revocations).filter_map(|path| path.parent());
        for dir in dirs.filter(|dir| !dir.as_os_str().is_empty()).chain([self.dir.as_path()]) {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(dir).with_context(|| dir.display().to_string())?;
        }
        Ok(())
    }

    /// The whole configuration of the new node.
    ///
    /// # Errors
    /// What it says already is of another node, or of another parent.
    pub(super) fn configuration(
        &self,
        endpoint: &str,
        parent: Division,
        id: &SpiffeId,
        division: Division,
    ) -> anyhow::Result<String> {
        let said = |table: &Table, key: &str| -> Option<String> {
            table.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let agrees = |said: Option<String>, meant: Division, key: &str| match said {
            Some(said) if Division::parse(&said).ok() != Some(meant) => bail!(
                "{}: `{key}` is {said}, but the invitation is for {meant}; take another configuration or ask for \
                 another invitation (配置与邀请不符)",
                self.config.display()
            ),
            said => Ok(said.is_some()),
        };
        let mut head = String::new();
        if !agrees(said(&self.known, "division"), division, "division")? {
            head += &line("division", &division.to_string());
        }
        let domain = &id.trust_domain;
        match said(&self.known, "trust_domain") {
            Some(said) if said != domain.as_str() => {
                bail!("{}: `trust_domain` is {said}, but the parent's is {domain}", self.config.display())
            }
            Some(_) => {}
            None if *domain == TrustDomain::default() => {}
            None => head += &line("trust_domain", domain.as_str()),
        }
        if !self.known.contains_key("data_dir") {
            head += &line("data_dir", path_text(&self.dir)?);
        }
        if let Some(listen) = self.listen.as_ref().filter(|_| !self.known.contains_key("listen")) {
            head += &line("listen", listen);
        }
        let mut tail = String::new();
        let table = self.known.get("parent").and_then(Value::as_table);
        match table {
            Some(table) => drop(agrees(said(table, "division"), parent, "parent.division")?),
            None => {
                tail += "\n[parent]\n";
                tail += &line("division", &parent.to_string());
                tail += &line("address", endpoint);
            }
        }
        let tls = self.missing_files()?;
        let mut text = self.text.clone();
        if !self.known.contains_key("tls") {
            tail += "\n[tls]\n";
            tail += &tls;
        } else if !tls.is_empty() {
            text = self.with_files(&tls)?;
        }
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Ok(format!("{head}{text}{end}{tail}"))
    }

    /// The lines of `[tls]` that are not there.
    fn missing_files(&self) -> anyhow::Result<String> {
        let files = self.files();
        let revocations = files.revocations.as_deref().context("no place for revocation lists")?;
        let tls = self.known.get("tls").and_then(Value::as_table);
        let mut missing = String::new();
        for (key, path) in [
            ("certificate", files.certificate.as_path()),
            ("key", &files.key),
            ("authority", &files.authority),
            ("revocation_list", revocations),
        ] {
            if !tls.is_some_and(|tls| tls.contains_key(key)) {
                missing += &line(key, path_text(path)?);
            }
        }
        Ok(missing)
    }

    /// The text with more lines in its table `[tls]`.
    fn with_files(&self, lines: &str) -> anyhow::Result<String> {
        let is_header = |line: &str| line.split('#').next().is_some_and(|line| line.trim() == "[tls]");
        let more = |line: &str| if is_header(line) { lines.to_owned() } else { String::new() };
        let completed: String = self.text.lines().map(|line| format!("{line}\n{}", more(line))).collect();
        let mut meant = self.known.clone();
        if let Some(tls) = meant.get_mut("tls").and_then(Value::as_table_mut) {
            tls.extend(toml::from_str::<Table>(lines)?);
        }
        // Some write the table in another way: that is theirs to complete.
        if toml::from_str::<Table>(&completed).ok() != Some(meant) {
            bail!(
                "{}: add these lines to `[tls]`, and run the same command again (请在 [tls] 中补充以下各行):\n{lines}",
                self.config.display()
            );
        }
        Ok(completed)
    }
}

fn line(key: &str, value: &str) -> String {
    format!("{key} = {}\n", Value::from(value))
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid UTF-8", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    fn configured(dir: &Path, before: &str) -> anyhow::Result<Config> {
        let config = dir.join("guantong.toml");
        std::fs::write(&config, before).unwrap();
        let place = Place::find(dir.to_owned(), config.clone(), Some("0.0.0.0:7443".to_owned()))?;
        let id = SpiffeId::parse("spiffe://example.gov.cn/node/220822000000").unwrap();
        let text = place.configuration("p.example:7443", division("2208"), &id, division("220822"))?;
        std::fs::write(&config, text)?;
        Ok(Config::load(&config)?)
    }

    #[test]
    fn a_configuration_is_written_or_completed() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = configured(dir.path(), "").unwrap();
        assert_eq!((fresh.division, fresh.data_dir.as_path()), (division("220822"), dir.path()));
        assert_eq!(fresh.listen.as_deref(), Some("0.0.0.0:7443"));
        assert_eq!(fresh.parent.unwrap().address, ["p.example:7443"]);
        assert_eq!(fresh.trust_domain.as_str(), "example.gov.cn");
        assert_eq!(fresh.tls.unwrap().revocation_list, Some(dir.path().join("revocations.pem")));

        let said = "# ours\nlisten = \"10.0.0.1:1\"\ndata_dir = \"/srv/x\"\n[tls]\ncertificate = \"/srv/c\"\nkey = \
                    \"/srv/k\"\nauthority = \"/srv/a\"";
        let completed = configured(dir.path(), said).unwrap();
        assert_eq!(completed.listen.as_deref(), Some("10.0.0.1:1"), "what is said stays");
        assert_eq!(completed.tls.unwrap().key, Path::new("/srv/k"));
        assert_eq!(completed.division, division("220822"));
    }

    #[test]
    fn a_table_tls_that_lacks_files_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let said = "[parent]\ndivision = \"2208\"\naddress = \"a:1\"\n\n [tls] # ours\nkey = \"/srv/k\"\n\n[log]\nlevel = \"info\"\n";
        let completed = configured(dir.path(), said).unwrap();
        let text = std::fs::read_to_string(dir.path().join("guantong.toml")).unwrap();
        let tls = completed.tls.unwrap();
        assert_eq!(tls.key, Path::new("/srv/k"), "what is said stays: {text}");
        assert_eq!(tls.certificate, dir.path().join("certificate.pem"));
        assert_eq!(tls.revocation_list, Some(dir.path().join("revocations.pem")));
        assert!(text.contains("# ours\n") && text.ends_with("[log]\nlevel = \"info\"\n"), "{text}");

        let others = [
            "tls = { key = \"/srv/k\" }",
            "tls.key = \"/srv/k\"",
            "x = '''\n[tls]\n'''\ntls.key = \"/srv/k\"",
        ];
        for said in others {
            let refused = configured(dir.path(), said).unwrap_err().to_string();
            assert!(refused.contains("revocation_list = "), "{refused}");
            assert_eq!(std::fs::read_to_string(dir.path().join("guantong.toml")).unwrap(), said);
        }
    }

    #[test]
    fn a_configuration_of_another_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (said, key) in [
            ("division = \"220881\"", "division"),
            ("trust_domain = \"b\"", "trust_domain"),
            ("[parent]\ndivision = \"22\"\naddress = \"a:1\"", "parent.division"),
        ] {
            let refused = configured(dir.path(), said).unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }
}
