"""Every error that a user can cause: what happened, what was found, what to do.

All derive from `AdapterError`, and each from the builtin that fits it best. The command line prints the text of one as
a single line and exits with code 1.
"""


class AdapterError(Exception):
    """Base of all errors that a user of the library can cause and fix.

    Examples:
        >>> from vlm_adapters import AdapterError, load_adapter
        >>> try:
        ...     load_adapter("tiny-lava")
        ... except AdapterError as error:
        ...     print(type(error).__name__)
        CheckpointError
    """


class PluginError(AdapterError, ImportError):
    """A plugin cannot be used: broken, malformed, clashing, or its extra is not installed."""


class UnknownAdapterError(AdapterError, LookupError):
    """No installed plugin offers an adapter of this name or for this checkpoint."""


class CheckpointError(AdapterError, FileNotFoundError):
    """A checkpoint is missing, incomplete, or of another kind than the one that was expected."""


class ImageError(AdapterError, ValueError):
    """An image cannot be used: unreadable, empty, remote, or beyond the limits of size and aspect."""


class PromptError(AdapterError, ValueError):
    """A prompt cannot be used: no image, no text, unknown role, or text that no tokenizer can encode."""


class PhraseError(PromptError):
    """A phrase is missing from the text, ambiguous in it, blank, or its span lies outside it."""


class OptionError(AdapterError, ValueError):
    """An option of an adapter is unknown, or its value cannot be used."""


class RequestError(AdapterError, ValueError):
    """A request asks for layers, heads or an alignment that the backbone does not have."""


class CaptureError(AdapterError, RuntimeError):
    """Attention rows cannot be computed exactly in this setting, so none are given."""


class BackboneError(AdapterError, RuntimeError):
    """The model behind an adapter, or its processor, raised an error; the text names the version of transformers."""


class NoGridError(AdapterError, LookupError):
    """The image tokens of a backbone have no places in the image, so it gives no maps over it."""

    def __init__(self) -> None:
        super().__init__(
            "The image tokens of this backbone have no places in the image: a resampler mixes it before the language "
            "model sees it. Its rows and hidden states are in Grids; for maps and masks take another backbone."
        )


class DecoderError(AdapterError, ValueError):
    """A decoder does not fit the backbone or the grids it is given."""


class NothingFoundError(AdapterError, LookupError):
    """Nothing of what was to be grounded was found in the image, so there is nothing to crop."""


class OutputError(AdapterError, OSError):
    """A result cannot be written to the path that was given."""


class DataError(AdapterError, ValueError):
    """A data set or a sample of it is malformed."""


class CacheError(AdapterError, ValueError):
    """A folder is not a cache, or the cache is unfinished, damaged, or built with another plan."""


class RecipeError(AdapterError, ValueError):
    """A recipe cannot be used, or the run that it would resume was started with another recipe."""


class LoadingWarning(UserWarning):
    """A model was not loaded the way its checkpoint asks for, but gives the same numbers. Shown as one line."""


class NoDecoderWarning(UserWarning):
    """Masks come from a model without a decoder, and nobody chose by what method."""


class MissingFontWarning(UserWarning):
    """No font of this system has a letter that a figure is to show."""


class UnlikeSceneWarning(UserWarning):
    """An embedded model, which knows synthetic scenes alone, was given an image that looks like none of them."""
