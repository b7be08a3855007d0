//! `pagecast keygen`.

use std::path::PathBuf;

use clap::Args;
use pagecast::remote::IdentityError;
use pagecast::remote::secure::{Made, generate};

use crate::address::default_identity;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Links to other hosts are TLS between ends that know each other's certificates. Make an identity on each host, and
put each one's certificate.pem into the folder trusted of the other's, under any name that ends in .pem. Who is put
there is trusted from then on, who is taken away makes no new link. Certificates do not expire.

Examples:
  pagecast keygen
  pagecast keygen --dir /etc/pagecast")]
pub(crate) struct Keygen {
    /// The folder of the identity; ~/.config/pagecast unless given, where every command looks by itself.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Replace the identity that is there: every peer needs the new certificate then.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Keygen {
    pub(crate) fn run(self) -> Outcome {
        let nowhere = || Failure::usage("neither XDG_CONFIG_HOME nor HOME is set: say where with --dir");
        let folder = self.dir.clone().or_else(default_identity).ok_or_else(nowhere)?;
        let host =
            nix::sys::utsname::uname().ok().and_then(|system| system.nodename().to_str().map(str::to_owned));
        let host = host.unwrap_or_else(|| "this-host".to_owned());
        let made = generate(&folder, &format!("pagecast {host}"), self.force).map_err(|error| {
            let exit = if matches!(error, IdentityError::Exists(_)) { Exit::Refused } else { Exit::Failed };
            Failure::new(exit, error)
        })?;
        match self.json {
            true => output::json(&serde_json::json!({
                "certificate": made.certificate,
                "trusted": made.trusted,
                "fingerprint": made.fingerprint.to_string(),
            }))?,
            false => self.tell(&made, &host)?,
        }
        Ok(Exit::Ok)
    }

    fn tell(&self, made: &Made, host: &str) -> std::io::Result<()> {
        let given = match &self.dir {
            Some(folder) => format!(", and name this one: --identity {}", folder.display()),
            None => String::new(),
        };
        output::line(format_args!("certificate  {}", made.certificate.display()))?;
        output::line(format_args!("fingerprint  {}", made.fingerprint))?;
        output::line(format_args!("trusted      {}/*.pem", made.trusted.display()))?;
        output::line(format_args!(
            "\nCopy the certificate to each peer, as trusted/{host}.pem in the folder of its identity, and each peer's \
             to\n{}/{given}. The key stays here.",
            made.trusted.display()
        ))
    }
}
