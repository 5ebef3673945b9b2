"""What the author of a plugin changes when a check fails: shown with the failure."""

from __future__ import annotations

REMEDIES = {
    "check_protocol": (
        "`name` is the `model_type` of the checkpoints' config; derive from TransformersBackbone, or write every "
        "member of BackboneAdapter."
    ),
    "check_info": (
        "`info` is read off the text config: its layers, heads and width must be those of the language model."
    ),
    "check_phrases_spell_themselves": (
        "`render` must return the span of every text of the prompt in the rendered template."
    ),
    "check_phrase_among_other_scripts": (
        "Positions are counted in tokens, by the tokenizer's offsets: neither characters nor bytes."
    ),
    "check_repeated_words": "Find a phrase by its span (`Phrase.start`), not by searching for its words.",
    "check_control_tokens_are_text": ("Encode what the user wrote so that the tokenizer reads no control token in it."),
    "check_ids_equal_stock": (
        "Render with the checkpoint's chat template; a processor that writes text around an image joins it with "
        "the words beside it."
    ),
    "check_grid_shapes": (
        "`cells` of the layouts are the rows and columns over all tiles, `(h, w)`; sizes are `(H, W)`."
    ),
    "check_cell_boxes": (
        "The box follows from `resized`, `canvas` and `offset` of the layout: a processor that squashes has "
        "resized == canvas, one that pads a larger canvas, one that crops a negative offset; seams are `rows`, "
        "`columns`."
    ),
    "check_cells_are_image_tokens": (
        "`image_token_ids` are the ids that layouts count: those of cells, and of `first`, `row_end` and `last`, "
        "if these have ids of image tokens."
    ),
    "check_orientation": (
        "The order of the tokens is not that of the layout: tokens that come tile after tile need `tiles=(down, "
        "across)`, an overview that comes last stands last in `layouts`, newlines are a `row_end`."
    ),
    "check_several_images": (
        "`layouts` gets the sizes of all images of a prompt and returns a list for each. A family that treats an "
        "image in another way beside others has the rule AdapterCase.expected_beside_others."
    ),
    "check_several_images_are_not_mixed": (
        "The model's tensors must be in the order of the images (`select_images`), and an image's tokens must see "
        "the second image nowhere: see `attention_pattern`."
    ),
    "check_video_is_taken_or_refused": (
        "`video_layouts` is inherited where a family takes no video, and then AdapterCase.expected_video is None."
    ),
    "check_video_grids": (
        "`video_layouts` gives the layouts of a video in the order of their tokens, each with the `frames` it shows; "
        "an end of all frames is `last` of the last layout."
    ),
    "check_video_ids_equal_stock": (
        "`process_videos` passes every frame on and the caller's times; what stands between the frames comes from the "
        "processor."
    ),
    "check_rows_equal_eager": (
        "Rows are recorded beside the kernel: a layer with a mask, sink or cap of its own must go through "
        "transformers' attention interface."
    ),
    "check_left_padded_batch_equals_samples": (
        "Tensors of several images must be those of each image alone: pad nothing into them that the model sees."
    ),
    "check_right_padded_batch_equals_samples": (
        "Tensors of several images must be those of each image alone: pad nothing into them that the model sees."
    ),
    "check_texts_of_one_image_equal_samples": (
        "Texts about one image share a pass by `attention_pattern`, `position_ids` and `select_images`. Without a "
        'declaration, attention_pattern="undeclared", none is shared.'
    ),
    "check_attention_pattern": "Declare who sees whom in `attention_pattern`; docs/plugins.md has the table.",
    "check_preprocess_uses_no_network": "Read everything when the adapter is loaded.",
    "check_spawned_process": "`load` of the case must be a function at the top level of a module.",
}
"""Name of a check -> what to change. Checks that only the library itself can break have none."""
