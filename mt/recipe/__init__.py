"""A recipe: everything that decides a training run, as typed, frozen dataclasses.

The attribute docstrings are the text of `mt train --help`, and `recipes/*.yaml` are instances.
"""

from mt.recipe.classification import (
    ClassificationBatching,
    ClassificationEvaluation,
    ClassificationRecipe,
    ClassificationTraining,
    LabelledCleaning,
    LabelledCorpus,
    LabelledSource,
)
from mt.recipe.forecasting import (
    ForecastEvaluation,
    ForecastingRecipe,
    SeriesBatching,
    SeriesOptions,
)
from mt.recipe.language_model import (
    LanguageModelRecipe,
    TextBatching,
    TextCleaning,
    TextCorpus,
    TextSource,
)
from mt.recipe.sections import (
    Batching,
    HubSource,
    Optimization,
    Recipe,
    TokenizerSpec,
    map_paths,
)
from mt.recipe.translation import (
    BackTranslation,
    Cleaning,
    Corpus,
    Distillation,
    Evaluation,
    ShortlistOptions,
    Source,
    Training,
    TranslationRecipe,
)

RECIPES: dict[str, type[Recipe]] = {
    "translation": TranslationRecipe,
    "language-model": LanguageModelRecipe,
    "forecasting": ForecastingRecipe,
    "classification": ClassificationRecipe,
}
"""The recipes by their task."""

__all__ = [
    "RECIPES",
    "BackTranslation",
    "Batching",
    "ClassificationBatching",
    "ClassificationEvaluation",
    "ClassificationRecipe",
    "ClassificationTraining",
    "Cleaning",
    "Corpus",
    "Distillation",
    "Evaluation",
    "ForecastEvaluation",
    "ForecastingRecipe",
    "HubSource",
    "LabelledCleaning",
    "LabelledCorpus",
    "LabelledSource",
    "LanguageModelRecipe",
    "Optimization",
    "Recipe",
    "SeriesBatching",
    "SeriesOptions",
    "ShortlistOptions",
    "Source",
    "TextBatching",
    "TextCleaning",
    "TextCorpus",
    "TextSource",
    "TokenizerSpec",
    "Training",
    "TranslationRecipe",
    "map_paths",
]
