//! `modelpress compress`: the server's job without the server.
//!
//! Owns: the output folder, signals, the files beside the artifacts.
//! Must not know: techniques, formats.
//! Invariant: the output folder appears complete or not at all.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelpress_engine::{
    Checkpoint, Class, Compute, DeviceName, Error, Observer as _, Outcome, Plan, Site, digest, execute,
    report,
};

use super::progress::Progress;
use super::{
    BAD_MODEL, FAILED, Failure, INTERRUPTED, REFUSED, USAGE, complain, datasets, recipe, say, summary,
};
use crate::signing::Signer;

/// What to compress, and into what.
#[derive(Debug, clap::Args)]
pub(super) struct CompressArgs {
    /// A checkpoint folder or a single model file
    model: PathBuf,
    /// A preset's name (`Q4_K_M`, `W4A16`, …; a wrong one lists all), a .yaml or .json file, or JSON
    #[arg(long, short, value_name = "RECIPE")]
    recipe: String,
    /// Output format; may be given several times [default: the recipe's own]
    #[arg(long = "format", short, value_name = "FORMAT")]
    formats: Vec<String>,
    #[command(flatten)]
    datasets: datasets::DatasetArgs,
    /// Folder for the artifacts, report.json and report.html; must be new or empty
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Compute threads [default: all cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// What models run on: cpu, cuda, cuda:N or metal; the others need a binary with that feature
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceName,
    /// Folder in which what calibration finds is kept for other recipes on the same model and data
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Sign each artifact with this Ed25519 key in OpenSSH's form (ssh-keygen -t ed25519 -N '')
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Write the report's plots beside it, as files of this kind
    #[arg(long, value_name = "KIND")]
    plots: Option<PlotKind>,
    /// Print the report as JSON on stdout and nothing else
    #[arg(long)]
    report_only_json: bool,
}

/// What plots are written as.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PlotKind {
    /// Drawings.
    Svg,
    /// Pictures.
    Png,
}

pub(super) fn run(args: &CompressArgs) -> Result<(), Failure> {
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global();
        pool.map_err(|error| Failure::new(USAGE, format!("--threads: {error}")))?;
    }
    let signer = args.signing_key.as_deref().map(Signer::open).transpose();
    let signer = signer.map_err(|error| Failure::new(USAGE, format!("--signing-key: {error}")))?;
    let compute = Compute::open(args.device).map_err(|error| failed(&error))?;
    let asked = recipe::Asked {
        recipe: &args.recipe,
        formats: &args.formats,
        datasets: &args.datasets,
    };
    let recipe::Opened {
        mut model,
        datasets,
        plan,
    } = recipe::open_and_plan(&args.model, asked)?;
    let staging = Staging::beside(&args.out)?;
    let progress = Progress::new(args.report_only_json, stop_on_signal()?);
    let scratch = staging.folder.join(".scratch");
    let statistics = args
        .cache
        .as_deref()
        .map(|cache| of_this_model(cache, &mut model))
        .transpose()?;
    let site = Site {
        out: &staging.folder,
        scratch: &scratch,
        statistics: statistics.as_deref(),
        compute,
    };
    let outcome = execute(&plan, &model, &datasets, &site, &progress);
    let _none_without_a_walk = fs::remove_dir_all(&scratch);
    progress.finish();
    let mut outcome = outcome.map_err(|error| failed(&error))?;
    if let Some(signer) = &signer {
        let signed = outcome
            .artifacts
            .iter_mut()
            .try_for_each(|artifact| signer.sign(artifact));
        signed.map_err(|error| Failure::new(FAILED, error))?;
    }
    write_reports(&staging.folder, &outcome)?;
    if let Some(kind) = args.plots {
        write_plots(&staging.folder.join("plots"), &outcome, kind)?;
    }
    let missed = missed_gate(&plan, &outcome, &staging.folder)?;
    staging.publish(&args.out)?;
    if args.report_only_json {
        say(serde_json::to_string(&outcome.report).map_err(|error| Failure::new(FAILED, error))?);
    } else {
        say(summary::table(
            &model.summary(),
            &outcome,
            progress.usage(),
            &args.out,
        ));
    }
    missed.map_or(Ok(()), Err)
}

/// The part of the cache that is this model's: named by what is in its files, whose digests are kept for the manifest.
fn of_this_model(cache: &Path, model: &mut Checkpoint) -> Result<PathBuf, Failure> {
    let mut names = String::new();
    for file in &mut model.files {
        let found = digest::sha256_of(&mut fs::File::open(&file.path)?, &|| true)?.unwrap_or_default();
        let _infallible = writeln!(names, "{found} {}", file.name);
        file.sha256 = Some(found);
    }
    let folder = cache.join(digest::sha256(names.as_bytes()));
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(FAILED, format!("{}: {error}", folder.display())))?;
    Ok(folder)
}

/// What missed a quality gate leaves its reports, and its artifacts where the recipe keeps them.
fn missed_gate(plan: &Plan, outcome: &Outcome, folder: &Path) -> Result<Option<Failure>, Failure> {
    let Some(gate) = &outcome.gate else {
        return Ok(None);
    };
    let is_kept = plan.recipe.gates.as_ref().is_none_or(|gates| gates.keep_artifact);
    if !is_kept {
        for artifact in &outcome.artifacts {
            fs::remove_dir_all(folder.join(&artifact.format))?;
        }
    }
    Ok(Some(Failure::new(FAILED, format!("{gate} (quality_gate)"))))
}

fn write_reports(folder: &Path, outcome: &Outcome) -> Result<(), Failure> {
    let json = serde_json::to_vec_pretty(&outcome.report).map_err(|error| Failure::new(FAILED, error))?;
    fs::write(folder.join("report.json"), json)?;
    Ok(fs::write(
        folder.join("report.html"),
        report::html(&outcome.report),
    )?)
}

fn write_plots(folder: &Path, outcome: &Outcome, kind: PlotKind) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    for plot in report::plots(&outcome.report) {
        let (end, bytes) = match kind {
            PlotKind::Svg => ("svg", plot.svg.clone().into_bytes()),
            PlotKind::Png => ("png", plot.png().map_err(|error| failed(&error))?),
        };
        fs::write(folder.join(format!("{}.{end}", plot.name)), bytes)?;
    }
    Ok(())
}

pub(super) fn failed(error: &Error) -> Failure {
    let code = match error.class {
        Class::BadInput => BAD_MODEL,
        Class::Unsupported => REFUSED,
        Class::Cancelled => INTERRUPTED,
        Class::Numeric | Class::Resources | Class::Internal => FAILED,
    };
    Failure::new(code, format!("{} ({})", error.message, error.code))
}

/// A folder beside the output folder that is removed unless it becomes it.
struct Staging {
    folder: PathBuf,
}

impl Staging {
    fn beside(out: &Path) -> Result<Self, Failure> {
        let occupied = out.is_file() || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            let message = format!("{} is there already; choose a new or empty folder", out.display());
            return Err(Failure::new(USAGE, message));
        }
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Failure::new(USAGE, "--out must name a folder"))?;
        let parent = out.parent().unwrap_or(Path::new(""));
        let folder = parent.join(format!(".{name}.partial-{}", std::process::id()));
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::new(FAILED, format!("{}: {error}", folder.display())))?;
        Ok(Self { folder })
    }

    fn publish(&self, out: &Path) -> Result<(), Failure> {
        if out.is_dir() {
            fs::remove_dir(out)?;
        }
        let failed = |error| Failure::new(FAILED, format!("{}: {error}", out.display()));
        fs::rename(&self.folder, out).map_err(failed)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.folder.exists()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            complain(&format!("{} is left behind: {error}", self.folder.display()));
        }
    }
}

/// The first signal asks the engine to stop, the second ends the process.
pub(super) fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                crate::app::signal().await;
                complain("stopping; once more to end at once");
                flag.store(true, Ordering::Relaxed);
                crate::app::signal().await;
                std::process::exit(i32::from(INTERRUPTED));
            });
        })?;
    Ok(stop)
}
