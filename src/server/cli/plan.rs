//! `modelpress plan`.

use std::path::PathBuf;

use super::{FAILED, Failure, datasets, recipe, say};

/// What to plan.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
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
}

pub(super) fn run(args: &PlanArgs) -> Result<(), Failure> {
    let asked = recipe::Asked {
        recipe: &args.recipe,
        formats: &args.formats,
        datasets: &args.datasets,
    };
    let plan = recipe::open_and_plan(&args.model, asked)?.plan;
    let text = serde_json::to_string_pretty(&plan).map_err(|error| Failure::new(FAILED, error))?;
    say(text);
    Ok(())
}
