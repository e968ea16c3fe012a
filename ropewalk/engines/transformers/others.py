"""Models of transformers that turn by positions and are not causal text models, so that nobody need ask after them.

Every config class of the newest release that rotates is a family, a family with a reason why it is not read, or here:
tests/engines/test_every_config.py walks them all, and fails for a release with a new one until somebody decides.

Given up: a rule from the names. `_vision` or `_audio` at the end says most of it, and nobody sees where it is wrong.
"""

OTHERS: dict[str, tuple[str, ...]] = {
    "an encoder of text, which sees both directions": (
        "bros", "embedding_gemma2_text", "eurobert", "funnel", "gte", "jina_embeddings_v3", "modernbert", "neomme",
        "nomic_bert", "openai_privacy_filter", "t5gemma2_text", "ultrabert", "videoprism_text_model",
    ),
    "a part or a whole for images or video": (
        "chameleon_vqgan", "cohere_compass_vision", "cosmos3_edge_vision", "deepseek_ocr2_encoder",
        "deepseek_ocr2_sam_vision_model", "dinov3_vit", "dots3_note_vision_encoder", "edgetam_video",
        "edgetam_video_mask_decoder", "edgetam_video_prompt_encoder", "efficientloftr", "emu3_vqgan", "eomt_dinov3",
        "ernie4_5_vl_moe_vision", "exaone4_5_vision", "gemma3n_vision", "gemma4_unified_vision", "gemma4_vision",
        "glm4v_moe_vision", "glm4v_vision", "glm5_next_vision", "glm_image_text", "glm_image_vision", "glm_image_vqmodel",
        "glm_ocr_vision", "granite_docling_vision", "hunyuan_vl_vision", "idefics_perciever", "idefics_vision",
        "inkling2_vision", "kimi_k25_vision", "lfm3_vl_vision", "lightglue", "llama4_vision_model",
        "minimax_m3_vl_vision", "mlcd", "mlcd_vision_model", "mllama_vision_model", "molmo2_adapter", "molmo2_vision",
        "muse_glimmer_vision", "muse_spark_vision", "paddleocr_vl_vision", "pe_video_encoder", "phi4_multimodal_vision",
        "pixtral", "qwen2_5_vl_vision", "qwen2_vl_vision", "qwen3_5_moe_vision", "qwen3_5_vision",
        "qwen3_vl_moe_vision", "qwen3_vl_vision", "qwen4_exp_vision", "sam2_video", "sam2_video_mask_decoder",
        "sam2_video_prompt_encoder", "sam3_detr_decoder", "sam3_detr_encoder", "sam3_geometry_encoder",
        "sam3_mask_decoder", "sam3_tracker_video", "sam3_tracker_video_mask_decoder",
        "sam3_tracker_video_prompt_encoder", "sam3_vit_model", "sapiens2", "sapiens2_head", "step3p5_vision",
        "unlimited_ocr_sam_vision_model", "unlimited_ocr_vision_encoder", "video_llama_3_vision",
        "videoprism_vision_model", "vjepa2", "qwen2_5_omni_vision_encoder", "qwen3_omni_moe_vision_encoder",
    ),
    "a part or a whole for sound": (
        "clvp_decoder", "clvp_encoder", "csm", "csm_depth_decoder_model", "dia_decoder", "dia_encoder",
        "dots3_note_audio_encoder", "gemma3n_audio", "gemma4_audio", "gemma4_unified_audio", "glmasr_encoder",
        "gradium_phonon_tts", "higgs_audio_v2", "kyutai_speech_to_text", "lasr_encoder", "mimi", "mimi_decoder",
        "mimi_encoder", "moonshine", "moonshine_streaming", "moonshine_streaming_encoder", "moshi_depth",
        "muse_spark_audio", "musicflamingo", "nemotron3_5_transcribe_asr_audio", "nemotron3_5_transcribe_word_timestamp",
        "nemotron3_diarization_audio", "nemotron_asr_streaming_encoder", "neucodec", "parakeet_encoder",
        "pe_audio_encoder", "pe_audio_video_encoder", "phi4_multimodal_audio", "pocket_tts", "pocket_tts_audio_tokenizer",
        "pocket_tts_audio_tokenizer_decoder", "pocket_tts_audio_tokenizer_encoder", "qwen2_5_omni_audio_encoder",
        "qwen2_5_omni_bigvgan", "qwen2_5_omni_dit", "qwen2_5_omni_talker", "qwen3_omni_moe_audio_encoder",
        "qwen3_omni_moe_talker_code_predictor", "qwen3_omni_moe_talker_text", "seamless_m4t",
        "voxtral_realtime_encoder", "voxtral_realtime_text", "wav2vec2-bert", "wav2vec2-conformer", "xcodec2",
    ),
    "a writer of whole blocks by denoising, which sees both directions": (
        "diffusion_gemma_text", "muse_glimmer_assistant",
    ),
    "a model of proteins": ("esm", "esmc"),
    "a model of time series": ("timesfm2_5",),
}  # fmt: skip
"""What a model is, and the model types that are that."""

KINDS: dict[str, str] = {name: kind for kind, names in OTHERS.items() for name in names}
"""Model type to what it is."""
