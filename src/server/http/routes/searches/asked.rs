//! The recipes that a search asks for: a list, a grid, or both.
//!
//! Owns: laying what all of them share into each, their names.
//! Must not know: what a recipe says.
//! Invariant: every recipe has an evaluation, since nothing could be compared without; names are told apart.

use serde_json::{Map, Value, json};

use crate::http::problem::Problem;

/// Most recipes of one search.
const MOST: usize = 64;

/// A recipe and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) recipe: Value,
    /// Where the request has it.
    pub(super) pointer: String,
}

/// What all recipes share, unless they say otherwise themselves.
#[derive(Debug, Default)]
pub(super) struct Shared<'a> {
    pub(super) calibration: Option<&'a Value>,
    pub(super) evaluation: Option<&'a Value>,
}

/// Spells all recipes out.
pub(super) fn all(recipes: &Value, grid: &Value, shared: &Shared<'_>) -> Result<Vec<Asked>, Problem> {
    let mut asked = Vec::new();
    match recipes {
        Value::Null => {}
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let pointer = format!("/recipes/{at}");
                let recipe = shared.laid_into(item, &pointer)?;
                asked.push(Asked {
                    name: name_of(item),
                    recipe,
                    pointer,
                });
            }
        }
        _ => return Err(Problem::field("/recipes", "wrong_type", "recipes is a list")),
    }
    if !grid.is_null() {
        asked.extend(of_grid(grid, shared)?);
    }
    if asked.len() > MOST {
        let detail = format!("{} recipes; a search has at most {MOST}", asked.len());
        return Err(Problem::field("/recipes", "too_many", detail));
    }
    if asked.is_empty() {
        let detail = "give recipes, a grid, or both";
        return Err(Problem::field("/recipes", "missing_field", detail));
    }
    tell_apart(&mut asked);
    Ok(asked)
}

impl Shared<'_> {
    fn laid_into(&self, recipe: &Value, pointer: &str) -> Result<Value, Problem> {
        let mut fields = match recipe {
            Value::String(preset) => Map::from_iter([("preset".to_owned(), json!(preset))]),
            Value::Object(fields) => fields.clone(),
            _ => {
                let detail = "a recipe is the name of a preset or an object";
                return Err(Problem::field(pointer, "wrong_type", detail));
            }
        };
        let own = fields.get("evaluation").filter(|value| !value.is_null());
        if own == Some(&Value::Bool(false)) {
            let detail = "a search compares: leave evaluation out, or give an object";
            return Err(Problem::field(
                format!("{pointer}/evaluation"),
                "no_evaluation",
                detail,
            ));
        }
        if own.is_none() {
            let evaluation = self.evaluation.cloned().unwrap_or(Value::Bool(true));
            fields.insert("evaluation".to_owned(), evaluation);
        }
        if let Some(calibration) = self.calibration.filter(|_| !fields.contains_key("calibration")) {
            fields.insert("calibration".to_owned(), calibration.clone());
        }
        Ok(Value::Object(fields))
    }
}

/// What people call a recipe: its preset or its techniques, and its budget.
fn name_of(recipe: &Value) -> String {
    if let Some(preset) = recipe.as_str() {
        return preset.to_owned();
    }
    let technique = |stage: &Value| stage["technique"].as_str().map(str::to_owned);
    let stages = recipe["stages"].as_array();
    let techniques = || -> Vec<String> { stages.into_iter().flatten().filter_map(technique).collect() };
    let own = recipe["preset"].as_str().map(str::to_owned);
    let base = own.unwrap_or_else(|| techniques().join(" + "));
    let limits = [
        "target_bytes",
        "target_bits_per_weight",
        "max_perplexity_increase",
        "max_kl",
        "max_accuracy_drop",
    ];
    let limit = limits.iter().find(|limit| !recipe["budget"][**limit].is_null());
    match limit {
        Some(limit) => format!("{base}, {limit} {}", recipe["budget"][*limit]),
        None => base,
    }
}

/// Every combination of the values that a grid gives to places in its recipe.
fn of_grid(grid: &Value, shared: &Shared<'_>) -> Result<Vec<Asked>, Problem> {
    let fields = grid.as_object();
    let fields = fields.ok_or_else(|| Problem::field("/grid", "wrong_type", "grid is an object"))?;
    if let Some(field) = fields
        .keys()
        .find(|key| !["recipe", "vary"].contains(&key.as_str()))
    {
        let detail = format!("unknown field {field:?}; known are recipe, vary");
        return Err(Problem::field(format!("/grid/{field}"), "unknown_field", detail));
    }
    let recipe = &grid["recipe"];
    let laid = shared.laid_into(recipe, "/grid/recipe")?;
    let vary = grid["vary"].as_object().filter(|vary| !vary.is_empty());
    let vary = vary.ok_or_else(|| {
        let detail =
            "vary has a list of values for each JSON pointer into the recipe, such as /options/group_size";
        Problem::field("/grid/vary", "missing_field", detail)
    })?;
    let mut all = vec![(Vec::new(), laid)];
    for (place, values) in vary {
        let at = format!("/grid/vary/{}", place.replace('~', "~0").replace('/', "~1"));
        let values = values.as_array().filter(|values| !values.is_empty());
        let values =
            values.ok_or_else(|| Problem::field(&at, "wrong_type", "a place has a list of values"))?;
        if all.len() * values.len() > MOST {
            let detail = format!("more than {MOST} combinations; a search has at most {MOST} recipes");
            return Err(Problem::field("/grid/vary", "too_many", detail));
        }
        let mut more = Vec::new();
        for (words, recipe) in &all {
            for value in values {
                let mut recipe = recipe.clone();
                put(&mut recipe, place, value).ok_or_else(|| {
                    Problem::field(
                        &at,
                        "no_such_place",
                        "this is no place in the recipe: give a JSON pointer",
                    )
                })?;
                let word = format!("{} {}", place.rsplit('/').next().unwrap_or(place), plain(value));
                more.push(([words.clone(), vec![word]].concat(), recipe));
            }
        }
        all = more;
    }
    let base = name_of(recipe);
    Ok(all
        .into_iter()
        .map(|(words, recipe)| Asked {
            name: format!("{base}, {}", words.join(", ")),
            recipe,
            pointer: "/grid".to_owned(),
        })
        .collect())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Puts a value at a JSON pointer; objects on the way are made.
fn put(recipe: &mut Value, pointer: &str, value: &Value) -> Option<()> {
    let mut here = recipe;
    for part in pointer.strip_prefix('/')?.split('/') {
        let part = part.replace("~1", "/").replace("~0", "~");
        here = match here {
            Value::Object(fields) => fields.entry(part).or_insert(Value::Null),
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            Value::Null => {
                *here = json!({});
                here.as_object_mut()?.entry(part).or_insert(Value::Null)
            }
            _ => return None,
        };
    }
    *here = value.clone();
    Some(())
}

/// Numbers those of the same name.
fn tell_apart(asked: &mut [Asked]) {
    for at in 0..asked.len() {
        let before = asked[..at]
            .iter()
            .filter(|other| other.name == asked[at].name)
            .count();
        if before > 0 {
            let mut number = before + 1;
            while asked
                .iter()
                .any(|other| other.name == format!("{} ({number})", asked[at].name))
            {
                number += 1;
            }
            asked[at].name = format!("{} ({number})", asked[at].name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(recipes: &Value, grid: &Value) -> Vec<String> {
        let asked = all(recipes, grid, &Shared::default()).expect("recipes");
        asked.into_iter().map(|asked| asked.name).collect()
    }

    #[test]
    fn a_grid_is_every_combination() {
        let grid = json!({"recipe": {"preset": "W4A16"},
            "vary": {"/options/group_size": [32, 64], "/budget/max_kl": [0.1, 0.2]}});
        let asked = all(&json!(["Q8_0"]), &grid, &Shared::default()).expect("recipes");
        assert_eq!(asked.len(), 5);
        assert_eq!(asked[0].recipe, json!({"preset": "Q8_0", "evaluation": true}));
        assert_eq!(
            asked[2].recipe,
            json!({"preset": "W4A16", "evaluation": true, "options": {"group_size": 32}, "budget": {"max_kl": 0.2}})
        );
        assert_eq!(asked[2].name, "W4A16, group_size 32, max_kl 0.2");
    }

    #[test]
    fn what_is_shared_is_laid_into_those_that_say_nothing_themselves() {
        let (calibration, evaluation) = (json!("mine"), json!({"metrics": ["kl"]}));
        let shared = Shared {
            calibration: Some(&calibration),
            evaluation: Some(&evaluation),
        };
        let own = json!({"preset": "W4A16", "calibration": "builtin", "evaluation": true});
        let asked = all(&json!(["Q8_0", own]), &Value::Null, &shared).expect("recipes");
        assert_eq!(asked[0].recipe["calibration"], "mine");
        assert_eq!(asked[0].recipe["evaluation"], evaluation);
        assert_eq!(asked[1].recipe, own);
    }

    #[test]
    fn names_are_told_apart() {
        let stages = json!({"stages": [{"technique": "awq"}, {"technique": "rtn"}]});
        let budget = json!({"preset": "Q4_K_M", "budget": {"target_bits_per_weight": 4.5}});
        assert_eq!(
            names(&json!(["Q8_0", "Q8_0", stages, "Q8_0", budget]), &Value::Null),
            [
                "Q8_0",
                "Q8_0 (2)",
                "awq + rtn",
                "Q8_0 (3)",
                "Q4_K_M, target_bits_per_weight 4.5"
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let many: Vec<u32> = (0..65).collect();
        for (recipes, grid, pointer) in [
            (Value::Null, Value::Null, "/recipes"),
            (json!([]), Value::Null, "/recipes"),
            (json!("Q8_0"), Value::Null, "/recipes"),
            (json!([3]), Value::Null, "/recipes/0"),
            (
                json!([{"preset": "Q8_0", "evaluation": false}]),
                Value::Null,
                "/recipes/0/evaluation",
            ),
            (Value::Null, json!([]), "/grid"),
            (Value::Null, json!({"recipe": "Q8_0", "very": {}}), "/grid/very"),
            (Value::Null, json!({"recipe": "Q8_0"}), "/grid/vary"),
            (
                Value::Null,
                json!({"recipe": "Q8_0", "vary": {"/seed": 3}}),
                "/grid/vary/~1seed",
            ),
            (
                Value::Null,
                json!({"recipe": "Q8_0", "vary": {"seed": [3]}}),
                "/grid/vary/seed",
            ),
            (
                Value::Null,
                json!({"recipe": "Q8_0", "vary": {"/preset/x": [3]}}),
                "/grid/vary/~1preset~1x",
            ),
            (
                Value::Null,
                json!({"recipe": "Q8_0", "vary": {"/seed": many}}),
                "/grid/vary",
            ),
        ] {
            let problem = all(&recipes, &grid, &Shared::default()).expect_err("is refused");
            assert_eq!(problem.errors()[0].pointer, pointer, "{recipes} {grid}");
        }
    }
}
