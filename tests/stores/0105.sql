CREATE TABLE sweep (
	id INTEGER NOT NULL,
	plan_digest VARCHAR NOT NULL,
	created VARCHAR NOT NULL,
	expression TEXT NOT NULL,
	digest VARCHAR NOT NULL,
	model VARCHAR NOT NULL,
	model_key VARCHAR NOT NULL,
	strength VARCHAR NOT NULL,
	positions VARCHAR NOT NULL,
	chat BOOLEAN NOT NULL,
	max_new_tokens INTEGER NOT NULL,
	temperature FLOAT NOT NULL,
	top_p FLOAT NOT NULL,
	top_k INTEGER NOT NULL,
	repetition_penalty FLOAT NOT NULL,
	CONSTRAINT pk_sweep PRIMARY KEY (id),
	CONSTRAINT ck_sweep_max_new_tokens_integer CHECK (typeof(max_new_tokens) = 'integer'),
	CONSTRAINT ck_sweep_top_k_integer CHECK (typeof(top_k) = 'integer'),
	CONSTRAINT ck_sweep_temperature_real CHECK (typeof(temperature) IN ('real')),
	CONSTRAINT ck_sweep_top_p_real CHECK (typeof(top_p) IN ('real')),
	CONSTRAINT ck_sweep_repetition_penalty_real CHECK (typeof(repetition_penalty) IN ('real')),
	CONSTRAINT ck_sweep_chat_flag CHECK (chat IN (0, 1)),
	CONSTRAINT ck_sweep_plan_digest_sha256 CHECK (length(plan_digest) = 64),
	CONSTRAINT ck_sweep_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT ck_sweep_max_new_tokens_from_1 CHECK (max_new_tokens >= 1),
	CONSTRAINT ck_sweep_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00'),
	CONSTRAINT ck_sweep_positions_known CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
	CONSTRAINT ck_sweep_strength_known CHECK (strength IN ('dose', 'coefficient')),
	CONSTRAINT ck_sweep_model_key_given CHECK (model_key <> ''),
	CONSTRAINT uq_sweep_plan_digest UNIQUE (plan_digest)
);
CREATE INDEX ix_sweep_created ON sweep (created);
CREATE INDEX ix_sweep_digest ON sweep (digest);
CREATE TABLE model (
	id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	identity VARCHAR NOT NULL,
	source VARCHAR NOT NULL,
	architecture VARCHAR NOT NULL,
	n_layers INTEGER NOT NULL,
	d_model INTEGER NOT NULL,
	fingerprint VARCHAR,
	revision VARCHAR,
	dtype VARCHAR,
	tokenizer VARCHAR,
	chat_template VARCHAR,
	CONSTRAINT pk_model PRIMARY KEY (id),
	CONSTRAINT ck_model_n_layers_integer CHECK (typeof(n_layers) = 'integer'),
	CONSTRAINT ck_model_d_model_integer CHECK (typeof(d_model) = 'integer'),
	CONSTRAINT ck_model_n_layers_positive CHECK (n_layers > 0),
	CONSTRAINT ck_model_d_model_positive CHECK (d_model > 0),
	CONSTRAINT ck_model_name_given CHECK (name <> ''),
	CONSTRAINT uq_model_name UNIQUE (name),
	CONSTRAINT uq_model_identity UNIQUE (identity)
);
CREATE TABLE removal (
	name VARCHAR NOT NULL,
	model VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	summary TEXT NOT NULL,
	created VARCHAR NOT NULL,
	CONSTRAINT pk_removal PRIMARY KEY (name, model, version),
	CONSTRAINT ck_removal_version_integer CHECK (typeof(version) = 'integer'),
	CONSTRAINT ck_removal_version_from_1 CHECK (version >= 1),
	CONSTRAINT ck_removal_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT ck_removal_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00')
);
CREATE TABLE undo (
	id INTEGER NOT NULL,
	created VARCHAR NOT NULL,
	what VARCHAR NOT NULL,
	text TEXT NOT NULL,
	undone BOOLEAN NOT NULL,
	steps TEXT NOT NULL,
	CONSTRAINT pk_undo PRIMARY KEY (id),
	CONSTRAINT ck_undo_undone_flag CHECK (undone IN (0, 1)),
	CONSTRAINT ck_undo_what_known CHECK (what IN ('tag', 'note', 'rename', 'remove')),
	CONSTRAINT ck_undo_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00')
);
CREATE TABLE run (
	id INTEGER NOT NULL,
	created VARCHAR NOT NULL,
	expression TEXT NOT NULL,
	prompt TEXT NOT NULL,
	model VARCHAR NOT NULL,
	layers VARCHAR NOT NULL,
	positions VARCHAR NOT NULL,
	seed INTEGER NOT NULL,
	chat BOOLEAN NOT NULL,
	max_new_tokens INTEGER NOT NULL,
	temperature FLOAT NOT NULL,
	top_p FLOAT NOT NULL,
	top_k INTEGER NOT NULL,
	repetition_penalty FLOAT NOT NULL,
	best INTEGER,
	operation VARCHAR DEFAULT 'add' NOT NULL,
	parameters TEXT DEFAULT '{}' NOT NULL,
	condition TEXT,
	CONSTRAINT pk_run PRIMARY KEY (id),
	CONSTRAINT ck_run_seed_integer CHECK (typeof(seed) = 'integer'),
	CONSTRAINT ck_run_max_new_tokens_integer CHECK (typeof(max_new_tokens) = 'integer'),
	CONSTRAINT ck_run_top_k_integer CHECK (typeof(top_k) = 'integer'),
	CONSTRAINT ck_run_max_new_tokens_from_1 CHECK (max_new_tokens >= 1),
	CONSTRAINT ck_run_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00'),
	CONSTRAINT ck_run_positions_known CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
	CONSTRAINT ck_run_operation_given CHECK (operation <> '')
);
CREATE INDEX ix_run_created ON run (created);
CREATE TABLE sweep_setting (
	sweep_id INTEGER NOT NULL,
	ordinal INTEGER NOT NULL,
	layer INTEGER,
	strength FLOAT NOT NULL,
	coefficient FLOAT NOT NULL,
	dose FLOAT,
	operation VARCHAR DEFAULT 'add' NOT NULL,
	parameters TEXT DEFAULT '{}' NOT NULL,
	layers VARCHAR,
	positions VARCHAR,
	condition TEXT,
	CONSTRAINT pk_sweep_setting PRIMARY KEY (sweep_id, ordinal),
	CONSTRAINT uq_sweep_setting_sweep_id_layer_strength UNIQUE (sweep_id, layer, strength),
	CONSTRAINT ck_sweep_setting_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
	CONSTRAINT ck_sweep_setting_layer_integer CHECK (typeof(layer) IN ('integer', 'null')),
	CONSTRAINT ck_sweep_setting_strength_real CHECK (typeof(strength) IN ('real')),
	CONSTRAINT ck_sweep_setting_coefficient_real CHECK (typeof(coefficient) IN ('real')),
	CONSTRAINT ck_sweep_setting_dose_real CHECK (typeof(dose) IN ('real', 'null')),
	CONSTRAINT ck_sweep_setting_layer_from_0 CHECK (layer >= 0),
	CONSTRAINT ck_sweep_setting_baseline_without_layer CHECK ((layer IS NULL) = (strength = 0)),
	CONSTRAINT ck_sweep_setting_one_baseline CHECK (layer IS NOT NULL OR ordinal = 0),
	CONSTRAINT ck_sweep_setting_positions_known CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
	CONSTRAINT ck_sweep_setting_operation_given CHECK (operation <> ''),
	CONSTRAINT fk_sweep_setting_sweep_id_sweep FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE
);
CREATE TABLE sweep_prompt (
	sweep_id INTEGER NOT NULL,
	ordinal INTEGER NOT NULL,
	prompt TEXT NOT NULL,
	CONSTRAINT pk_sweep_prompt PRIMARY KEY (sweep_id, ordinal),
	CONSTRAINT ck_sweep_prompt_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
	CONSTRAINT fk_sweep_prompt_sweep_id_sweep FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE
);
CREATE TABLE sweep_seed (
	sweep_id INTEGER NOT NULL,
	seed INTEGER NOT NULL,
	ordinal INTEGER NOT NULL,
	CONSTRAINT pk_sweep_seed PRIMARY KEY (sweep_id, seed),
	CONSTRAINT uq_sweep_seed_sweep_id_ordinal UNIQUE (sweep_id, ordinal),
	CONSTRAINT ck_sweep_seed_seed_integer CHECK (typeof(seed) = 'integer'),
	CONSTRAINT ck_sweep_seed_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
	CONSTRAINT fk_sweep_seed_sweep_id_sweep FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE
);
CREATE TABLE vector (
	id INTEGER NOT NULL,
	model_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	story VARCHAR NOT NULL,
	seal VARCHAR NOT NULL,
	edits INTEGER DEFAULT '0' NOT NULL,
	digest VARCHAR NOT NULL,
	scope VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	norm FLOAT NOT NULL,
	created VARCHAR NOT NULL,
	note TEXT NOT NULL,
	summary TEXT NOT NULL,
	path VARCHAR NOT NULL,
	"key" VARCHAR NOT NULL,
	newest BOOLEAN DEFAULT '1' NOT NULL,
	first_layer INTEGER DEFAULT '0' NOT NULL,
	story_text TEXT NOT NULL,
	CONSTRAINT pk_vector PRIMARY KEY (id),
	CONSTRAINT uq_vector_model_id_name_version UNIQUE (model_id, name, version),
	CONSTRAINT uq_vector_story UNIQUE (story),
	CONSTRAINT ck_vector_version_integer CHECK (typeof(version) = 'integer'),
	CONSTRAINT ck_vector_edits_integer CHECK (typeof(edits) = 'integer'),
	CONSTRAINT ck_vector_model_id_integer CHECK (typeof(model_id) = 'integer'),
	CONSTRAINT ck_vector_norm_real CHECK (typeof(norm) IN ('real')),
	CONSTRAINT ck_vector_version_from_1 CHECK (version >= 1),
	CONSTRAINT ck_vector_edits_not_negative CHECK (edits >= 0),
	CONSTRAINT ck_vector_norm_not_negative CHECK (norm >= 0),
	CONSTRAINT ck_vector_name_given CHECK (name <> ''),
	CONSTRAINT ck_vector_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT ck_vector_story_sha256 CHECK (length(story) = 64),
	CONSTRAINT ck_vector_seal_sha256 CHECK (length(seal) = 64),
	CONSTRAINT ck_vector_scope_known CHECK (scope IN ('broadcast', 'front')),
	CONSTRAINT ck_vector_kind_known CHECK (kind IN ('contrast', 'expression', 'imported')),
	CONSTRAINT ck_vector_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00'),
	CONSTRAINT ck_vector_path_inside CHECK (path NOT LIKE '/%' AND path NOT LIKE '%..%'),
	CONSTRAINT fk_vector_model_id_model FOREIGN KEY(model_id) REFERENCES model (id)
);
CREATE INDEX ix_vector_created ON vector (created);
CREATE INDEX ix_vector_listing ON vector (newest, model_id, name, version, kind, first_layer, norm, created);
CREATE INDEX ix_vector_path ON vector (path);
CREATE INDEX ix_vector_name ON vector (name);
CREATE INDEX ix_vector_digest ON vector (digest);
CREATE TABLE generation (
	run_id INTEGER NOT NULL,
	ordinal INTEGER NOT NULL,
	coefficient FLOAT NOT NULL,
	dose FLOAT,
	text TEXT NOT NULL,
	finish VARCHAR NOT NULL,
	tokens INTEGER NOT NULL,
	operation VARCHAR DEFAULT 'add' NOT NULL,
	parameters TEXT DEFAULT '{}' NOT NULL,
	layers VARCHAR,
	positions VARCHAR,
	condition TEXT,
	expression VARCHAR,
	rating INTEGER,
	CONSTRAINT pk_generation PRIMARY KEY (run_id, ordinal),
	CONSTRAINT ck_generation_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
	CONSTRAINT ck_generation_tokens_integer CHECK (typeof(tokens) = 'integer'),
	CONSTRAINT ck_generation_rating_integer CHECK (typeof(rating) IN ('integer', 'null')),
	CONSTRAINT ck_generation_coefficient_real CHECK (typeof(coefficient) IN ('real')),
	CONSTRAINT ck_generation_dose_real CHECK (typeof(dose) IN ('real', 'null')),
	CONSTRAINT ck_generation_tokens_not_negative CHECK (tokens >= 0),
	CONSTRAINT ck_generation_rating_from_1_to_5 CHECK (rating BETWEEN 1 AND 5),
	CONSTRAINT ck_generation_finish_known CHECK (finish IN ('stop', 'length', 'cancelled')),
	CONSTRAINT ck_generation_positions_known CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
	CONSTRAINT ck_generation_operation_given CHECK (operation <> ''),
	CONSTRAINT fk_generation_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
CREATE TABLE sweep_operand (
	sweep_id INTEGER NOT NULL,
	ref VARCHAR NOT NULL,
	digest VARCHAR,
	vector_id INTEGER,
	CONSTRAINT pk_sweep_operand PRIMARY KEY (sweep_id, ref),
	CONSTRAINT ck_sweep_operand_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT fk_sweep_operand_sweep_id_sweep FOREIGN KEY(sweep_id) REFERENCES sweep (id) ON DELETE CASCADE,
	CONSTRAINT fk_sweep_operand_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE SET NULL
);
CREATE INDEX ix_sweep_operand_digest ON sweep_operand (digest);
CREATE INDEX ix_sweep_operand_vector_id_sweep_id ON sweep_operand (vector_id, sweep_id);
CREATE TABLE cell (
	id INTEGER NOT NULL,
	sweep_id INTEGER NOT NULL,
	setting INTEGER NOT NULL,
	prompt INTEGER NOT NULL,
	seed INTEGER NOT NULL,
	text TEXT NOT NULL,
	finish VARCHAR NOT NULL,
	tokens INTEGER NOT NULL,
	CONSTRAINT pk_cell PRIMARY KEY (id),
	CONSTRAINT uq_cell_sweep_id_setting_prompt_seed UNIQUE (sweep_id, setting, prompt, seed),
	CONSTRAINT fk_cell_sweep_id_setting_sweep_setting FOREIGN KEY(sweep_id, setting) REFERENCES sweep_setting (sweep_id, ordinal) ON DELETE CASCADE,
	CONSTRAINT fk_cell_sweep_id_prompt_sweep_prompt FOREIGN KEY(sweep_id, prompt) REFERENCES sweep_prompt (sweep_id, ordinal) ON DELETE CASCADE,
	CONSTRAINT fk_cell_sweep_id_seed_sweep_seed FOREIGN KEY(sweep_id, seed) REFERENCES sweep_seed (sweep_id, seed) ON DELETE CASCADE,
	CONSTRAINT ck_cell_tokens_integer CHECK (typeof(tokens) = 'integer'),
	CONSTRAINT ck_cell_tokens_not_negative CHECK (tokens >= 0),
	CONSTRAINT ck_cell_finish_whole CHECK (finish IN ('stop', 'length'))
);
CREATE TABLE calibration (
	id INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	vector_id INTEGER,
	created VARCHAR NOT NULL,
	works BOOLEAN NOT NULL,
	layer INTEGER,
	dose FLOAT,
	coefficient FLOAT,
	safe_low FLOAT,
	safe_high FLOAT,
	data TEXT NOT NULL,
	operation VARCHAR DEFAULT 'add' NOT NULL,
	parameters TEXT DEFAULT '{}' NOT NULL,
	layers VARCHAR,
	positions VARCHAR,
	condition TEXT,
	CONSTRAINT pk_calibration PRIMARY KEY (id),
	CONSTRAINT ck_calibration_layer_integer CHECK (typeof(layer) IN ('integer', 'null')),
	CONSTRAINT ck_calibration_dose_real CHECK (typeof(dose) IN ('real', 'null')),
	CONSTRAINT ck_calibration_coefficient_real CHECK (typeof(coefficient) IN ('real', 'null')),
	CONSTRAINT ck_calibration_safe_low_real CHECK (typeof(safe_low) IN ('real', 'null')),
	CONSTRAINT ck_calibration_safe_high_real CHECK (typeof(safe_high) IN ('real', 'null')),
	CONSTRAINT ck_calibration_works_flag CHECK (works IN (0, 1)),
	CONSTRAINT ck_calibration_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT ck_calibration_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00'),
	CONSTRAINT ck_calibration_layer_from_0 CHECK (layer >= 0),
	CONSTRAINT ck_calibration_safe_in_order CHECK (safe_low <= safe_high),
	CONSTRAINT ck_calibration_safe_both CHECK ((safe_low IS NULL) = (safe_high IS NULL)),
	CONSTRAINT ck_calibration_works_somewhere CHECK (NOT works OR (layer IS NOT NULL AND dose IS NOT NULL AND coefficient IS NOT NULL AND safe_low IS NOT NULL)),
	CONSTRAINT ck_calibration_positions_known CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
	CONSTRAINT ck_calibration_operation_given CHECK (operation <> ''),
	CONSTRAINT fk_calibration_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE SET NULL
);
CREATE INDEX ix_calibration_vector_id ON calibration (vector_id);
CREATE INDEX ix_calibration_digest_created ON calibration (digest, created);
CREATE TABLE evaluation (
	id INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	vector_id INTEGER,
	created VARCHAR NOT NULL,
	suite VARCHAR NOT NULL,
	suite_digest VARCHAR NOT NULL,
	model VARCHAR NOT NULL,
	model_key VARCHAR NOT NULL,
	versions TEXT NOT NULL,
	data TEXT,
	operation VARCHAR DEFAULT 'add' NOT NULL,
	parameters TEXT DEFAULT '{}' NOT NULL,
	layers VARCHAR,
	positions VARCHAR,
	condition TEXT,
	CONSTRAINT pk_evaluation PRIMARY KEY (id),
	CONSTRAINT ck_evaluation_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT ck_evaluation_suite_digest_sha256 CHECK (length(suite_digest) = 64),
	CONSTRAINT ck_evaluation_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00'),
	CONSTRAINT ck_evaluation_suite_given CHECK (suite <> ''),
	CONSTRAINT ck_evaluation_model_key_given CHECK (model_key <> ''),
	CONSTRAINT ck_evaluation_positions_known CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
	CONSTRAINT ck_evaluation_operation_given CHECK (operation <> ''),
	CONSTRAINT fk_evaluation_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE SET NULL
);
CREATE INDEX ix_evaluation_vector_id ON evaluation (vector_id);
CREATE INDEX ix_evaluation_digest_created ON evaluation (digest, created);
CREATE TABLE direction (
	vector_id INTEGER NOT NULL,
	layer INTEGER NOT NULL,
	positions INTEGER NOT NULL,
	norm FLOAT NOT NULL,
	residual_norm FLOAT,
	CONSTRAINT pk_direction PRIMARY KEY (vector_id, layer),
	CONSTRAINT ck_direction_layer_integer CHECK (typeof(layer) = 'integer'),
	CONSTRAINT ck_direction_positions_integer CHECK (typeof(positions) = 'integer'),
	CONSTRAINT ck_direction_norm_real CHECK (typeof(norm) IN ('real')),
	CONSTRAINT ck_direction_residual_norm_real CHECK (typeof(residual_norm) IN ('real', 'null')),
	CONSTRAINT ck_direction_layer_from_0 CHECK (layer >= 0),
	CONSTRAINT ck_direction_positions_from_1 CHECK (positions >= 1),
	CONSTRAINT ck_direction_norm_not_negative CHECK (norm >= 0),
	CONSTRAINT ck_direction_residual_norm_not_negative CHECK (residual_norm >= 0),
	CONSTRAINT fk_direction_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX ix_direction_layer_vector_id ON direction (layer, vector_id);
CREATE TABLE operand (
	child_id INTEGER NOT NULL,
	ordinal INTEGER NOT NULL,
	hint VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	parent_id INTEGER,
	CONSTRAINT pk_operand PRIMARY KEY (child_id, ordinal),
	CONSTRAINT uq_operand_child_id_digest UNIQUE (child_id, digest),
	CONSTRAINT ck_operand_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
	CONSTRAINT ck_operand_not_itself CHECK (parent_id <> child_id),
	CONSTRAINT ck_operand_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT fk_operand_child_id_vector FOREIGN KEY(child_id) REFERENCES vector (id) ON DELETE CASCADE,
	CONSTRAINT fk_operand_parent_id_vector FOREIGN KEY(parent_id) REFERENCES vector (id) ON DELETE SET NULL
);
CREATE INDEX ix_operand_digest ON operand (digest);
CREATE INDEX ix_operand_parent_id ON operand (parent_id);
CREATE TABLE tag (
	vector_id INTEGER NOT NULL,
	tag VARCHAR NOT NULL,
	CONSTRAINT pk_tag PRIMARY KEY (vector_id, tag),
	CONSTRAINT ck_tag_tag_given CHECK (tag <> ''),
	CONSTRAINT fk_tag_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX ix_tag_tag_vector_id ON tag (tag, vector_id);
CREATE TABLE run_operand (
	run_id INTEGER NOT NULL,
	ref VARCHAR NOT NULL,
	digest VARCHAR,
	vector_id INTEGER,
	CONSTRAINT pk_run_operand PRIMARY KEY (run_id, ref),
	CONSTRAINT ck_run_operand_digest_sha256 CHECK (length(digest) = 64),
	CONSTRAINT fk_run_operand_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE,
	CONSTRAINT fk_run_operand_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE SET NULL
);
CREATE INDEX ix_run_operand_vector_id_run_id ON run_operand (vector_id, run_id);
CREATE INDEX ix_run_operand_digest ON run_operand (digest);
CREATE TABLE cell_metric (
	cell_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	value FLOAT,
	reason TEXT,
	CONSTRAINT pk_cell_metric PRIMARY KEY (cell_id, name),
	CONSTRAINT ck_cell_metric_value_real CHECK (typeof(value) IN ('real', 'null')),
	CONSTRAINT ck_cell_metric_name_given CHECK (name <> ''),
	CONSTRAINT ck_cell_metric_value_or_reason CHECK (value IS NULL OR reason IS NULL),
	CONSTRAINT fk_cell_metric_cell_id_cell FOREIGN KEY(cell_id) REFERENCES cell (id) ON DELETE CASCADE
);
CREATE TABLE evaluation_value (
	evaluation_id INTEGER NOT NULL,
	ordinal INTEGER NOT NULL,
	style VARCHAR NOT NULL,
	metric VARCHAR NOT NULL,
	setting VARCHAR NOT NULL,
	estimate FLOAT,
	low FLOAT,
	high FLOAT,
	n INTEGER NOT NULL,
	CONSTRAINT pk_evaluation_value PRIMARY KEY (evaluation_id, ordinal),
	CONSTRAINT uq_evaluation_value_evaluation_id_style_metric_setting UNIQUE (evaluation_id, style, metric, setting),
	CONSTRAINT ck_evaluation_value_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
	CONSTRAINT ck_evaluation_value_n_integer CHECK (typeof(n) = 'integer'),
	CONSTRAINT ck_evaluation_value_estimate_real CHECK (typeof(estimate) IN ('real', 'null')),
	CONSTRAINT ck_evaluation_value_low_real CHECK (typeof(low) IN ('real', 'null')),
	CONSTRAINT ck_evaluation_value_high_real CHECK (typeof(high) IN ('real', 'null')),
	CONSTRAINT ck_evaluation_value_metric_given CHECK (metric <> ''),
	CONSTRAINT ck_evaluation_value_n_not_negative CHECK (n >= 0),
	CONSTRAINT ck_evaluation_value_interval_in_order CHECK (low <= high),
	CONSTRAINT fk_evaluation_value_evaluation_id_evaluation FOREIGN KEY(evaluation_id) REFERENCES evaluation (id) ON DELETE CASCADE
);
