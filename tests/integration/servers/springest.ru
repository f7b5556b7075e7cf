# frozen_string_literal: true

# A Springest of Rails' own making: the certificates API as its help pages tell it, in one file, on real Rails and Puma.
#
# The client is tested against it so that multipart parsing, XML, JSON and error pages are those of Rails and not what
# somebody believes of Rails. It keeps everything in memory, in one process, and forgets all of it when it ends.
#
#   API_KEY=posts CERTIFICATIONS_API_KEY=lists puma --workers 0 --bind tcp://127.0.0.1:8080 springest.ru
#
# From the environment:
#   API_KEY                  the key of /users/certificates
#   CERTIFICATIONS_API_KEY   the key of /certifications
#   LIMIT, PERIOD            POSTs that are let through in any PERIOD seconds (30 in 60): a sliding window, in which a
#                            POST with the right key counts from its arrival, also when it turns out to be invalid
#   COUNT_REFUSALS           1: a POST refused for speed counts in the window as well (the default); 0: it does not
#   NOW                      a time such as 2026-01-05T09:30:00Z at which created_at stands still
#   SHAPE                    which of the shapes that are not documented it answers in, with commas between them:
#       bare            lists come without their envelope
#       without_meta    the envelope comes without its meta
#       nested          a certificate's name and description stand on its certification
#       string_ids      ids are strings
#       full_messages   validation errors are sentences: "Email is invalid"
#       without_id      a 201 has no body
#
# GET /__audit tells what arrived; GET /__error raises.

require "action_controller/railtie"
require "digest"

module Springest
  API_KEY = ENV.fetch("API_KEY")
  CERTIFICATIONS_API_KEY = ENV.fetch("CERTIFICATIONS_API_KEY")
  LIMIT = Integer(ENV.fetch("LIMIT", "30"))
  PERIOD = Float(ENV.fetch("PERIOD", "60"))
  COUNT_REFUSALS = ENV.fetch("COUNT_REFUSALS", "1") == "1"
  NOW = ENV["NOW"].presence
  SHAPES = %w[bare without_meta nested string_ids full_messages without_id].freeze
  SHAPE = ENV.fetch("SHAPE", "").split(",").freeze
  raise ArgumentError, "SHAPE knows #{SHAPES.join(', ')}, not #{SHAPE - SHAPES}" if (SHAPE - SHAPES).any?

  PATH_OF_POSTS = %r{\A/users/certificates(\.(json|xml))?\z}

  # Date.strptime would take 24-12-2025 for a day in the year 24.
  def self.date(text)
    raise Date::Error, "not YYYY-MM-DD" unless text.match?(/\A\d{4}-\d{2}-\d{2}\z/)

    Date.iso8601(text)
  end

  # Rails answers these with the status given in rescue_responses below, in the format that the path asks for.
  class NotAuthorized < StandardError; end
  class Forbidden < StandardError; end
  class TooFast < StandardError; end

  # `verified` is Springest's word: only what an employee has verified is ever listed.
  Certification = Struct.new(:id, :name, :description, :requires_valid_until, :verified, keyword_init: true)

  CERTIFICATIONS = [
    { id: 101, name: "VCA Basis", description: "Veiligheid, gezondheid & milieu", requires_valid_until: false },
    { id: 102, name: "BHV & EHBO", description: "Bedrijfshulpverlening, één jaar geldig ⛑️", requires_valid_until: true },
    { id: 103, name: "Hygiëne in de café-keuken 🎓", description: nil, requires_valid_until: false },
    { id: 104, name: "Nog niet bekeken <HACCP>", description: nil, requires_valid_until: false, verified: false },
  ].to_h { |row| [row[:id], Certification.new(verified: true, **row).freeze] }.freeze

  EXTERNAL_IDS = { "zoë@example.com" => "E-1007", "anna@example.com" => "1008" }.freeze

  # All that the threads share, behind one lock: the window of the limit, the audit, and the certificates.
  class Memory
    def initialize
      @lock = Mutex.new
      @window = []
      @posts = []
      @certificates = []
    end

    # A POST has arrived. Answers its audit entry, which goes on being filled in while the POST is handled.
    def arrive(path:, key_is_valid:)
      @lock.synchronize do
        now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
        too_fast = key_is_valid && !admit(now)
        post = { arrived: now, path: path, key_is_valid: key_is_valid, too_fast: too_fast, verdict: "malformed" }
        post.tap { @posts << post }
      end
    end

    def note(post, facts)
      @lock.synchronize { post.merge!(facts) }
    end

    def store(certificate)
      @lock.synchronize do
        certificate.merge(id: 5001 + @certificates.size).tap { |stored| @certificates << stored }
      end
    end

    def certificates
      @lock.synchronize { @certificates.dup }
    end

    def audit
      @lock.synchronize do
        { limit: LIMIT, period: PERIOD, most_in_any_period: most_in_any_period, posts: @posts.map(&:dup) }
      end
    end

    private

    def admit(now)
      @window.shift while @window.any? && now - @window.first >= PERIOD
      admitted = @window.size < LIMIT
      @window << now if admitted || COUNT_REFUSALS
      admitted
    end

    # Counted from the audit and not from the window, so that a mistake in one of them shows.
    def most_in_any_period
      times = @posts.select { |post| post[:key_is_valid] }.map { |post| post[:arrived] }
      times.each_with_index.map do |start, index|
        (times.bsearch_index { |time| time - start >= PERIOD } || times.size) - index
      end.max || 0
    end
  end

  MEMORY = Memory.new

  # Stands in front of Rails: a POST counts when it arrives, before anything of it is parsed, and whatever becomes of it.
  class Gate
    def initialize(app)
      @app = app
    end

    def call(env)
      return @app.call(env) unless env["REQUEST_METHOD"] == "POST" && PATH_OF_POSTS.match?(env["PATH_INFO"])

      post = MEMORY.arrive(path: env["PATH_INFO"], key_is_valid: key(env) == API_KEY)
      MEMORY.note(post, content_length: env["CONTENT_LENGTH"]&.to_i, content_type: env["CONTENT_TYPE"])
      env["springest.post"] = post
      @app.call(env).tap { |status, _, _| MEMORY.note(post, status: status) }
    end

    private

    def key(env)
      Rack::Utils.parse_query(env["QUERY_STRING"])["api_key"]
    rescue ArgumentError
      nil
    end
  end

  class Application < Rails::Application
    config.root = __dir__
    config.eager_load = false
    config.cache_store = :null_store
    config.consider_all_requests_local = false
    config.public_file_server.enabled = false
    config.secret_key_base = SecureRandom.hex(64)
    config.filter_parameters = [:api_key]
    config.logger = Logger.new($stdout)
    config.log_level = :warn

    # The 404 and 500 pages that `rails new` gives every application.
    pages = "lib/rails/generators/rails/app/templates/public"
    paths["public"] = File.join(Gem::Specification.find_by_name("railties").gem_dir, pages)

    config.action_dispatch.rescue_responses.merge!(
      "Springest::NotAuthorized" => :unauthorized,
      "Springest::Forbidden" => :forbidden,
      "Springest::TooFast" => :bad_request,
    )
    config.middleware.insert_before 0, Gate

    routes.append do
      # Without an extension the API answers JSON.
      scope format: true, constraints: { format: /json|xml/ } do
        get "/users/certificates", to: "springest/certificates#index"
        post "/users/certificates", to: "springest/certificates#create"
        get "/certifications", to: "springest/certifications#index"
      end
      scope format: false, defaults: { format: "json" } do
        get "/users/certificates", to: "springest/certificates#index"
        post "/users/certificates", to: "springest/certificates#create"
        get "/certifications", to: "springest/certifications#index"
        get "/__audit", to: "springest/backstage#audit"
      end
      get "/__error", to: "springest/backstage#error", format: false
    end
  end

  # Reads one POST: what is wrong with it, field by field, and the certificate that it makes.
  class Submission
    EMAIL = /\A[^@\s]+@[^@\s]+\.[^@\s]+\z/
    BASE64 = %r{\A[A-Za-z0-9+/\r\n]+={0,2}\s*\z}

    attr_reader :errors

    def initialize(fields)
      @fields = fields
      @errors = Hash.new { |faults, field| faults[field] = [] }
      check_certification
      check_email
      check_dates
      check_conversion
      check_file
    end

    def certificate
      {
        certification_id: certification.id,
        valid_from: @valid_from,
        valid_until: @valid_until,
        status: "approved",
        created_at: NOW ? Time.zone.parse(NOW) : Time.current,
        email: text("email"),
      }
    end

    # What Rails received as the file, for the audit.
    def received
      return {} unless upload?

      { filename: file.original_filename, file_type: file.content_type, part_headers: file.headers,
        size: file.size, sha256: Digest::SHA256.file(file.path).hexdigest }
    end

    def fields
      @fields.reject { |_, value| value.is_a?(ActionDispatch::Http::UploadedFile) }
    end

    private

    def text(name)
      value = @fields[name]
      value.is_a?(String) ? value : nil
    end

    def file
      @fields["file"]
    end

    def upload?
      file.is_a?(ActionDispatch::Http::UploadedFile)
    end

    def certification
      CERTIFICATIONS[Integer(text("certification_id"), 10, exception: false)] if text("certification_id")
    end

    def check_certification
      return @errors["certification_id"] << "can't be blank" if text("certification_id").blank?

      @errors["certification_id"] << "is invalid" unless certification
    end

    def check_email
      return @errors["email"] << "can't be blank" if text("email").blank?

      @errors["email"] << "is invalid" unless EMAIL.match?(text("email"))
    end

    def check_dates
      @valid_from = date("valid_from", required: true)
      @valid_until = date("valid_until", required: certification&.requires_valid_until)
      return unless @valid_from && @valid_until && @valid_until < @valid_from

      @errors["valid_until"] << "must be after valid from"
    end

    def date(name, required:)
      if text(name).blank?
        @errors[name] << "can't be blank" if required
        return nil
      end
      Springest.date(text(name))
    rescue Date::Error
      @errors[name] << "is not a valid date"
      nil
    end

    def check_conversion
      return if text("conversion_id").nil? || text("conversion_id").match?(/\A\d+\z/)

      @errors["conversion_id"] << "is not a number"
    end

    def check_file
      return @errors["file"] << "can't be blank" if file.blank? || (upload? && file.size.zero?)
      return @errors["file"] << "is invalid" unless upload?

      @errors["file"] << "cannot be decoded" if encoded_part? || encoded_content?
    end

    def encoded_part?
      file.headers.match?(/^content-transfer-encoding:\s*(base64|quoted-printable)/i)
    end

    # A look at the beginning is enough: a PDF, like every image, has bytes there that base64 does not know.
    def encoded_content?
      beginning = file.read(65_536).b.delete_prefix("data:application/pdf;base64,".b)
      file.rewind
      BASE64.match?(beginning)
    end
  end

  class ApiController < ActionController::API
    private

    def authorize(key, other:)
      case request.query_parameters["api_key"]
      when key then nil
      when other then raise Forbidden
      else raise NotAuthorized
      end
    end

    def answer(body, root:, status: :ok)
      params[:format] == "xml" ? render(xml: body.to_xml(root: root), status: status) : render(json: body, status: status)
    end

    def answer_page(rows, root:)
      offset = params[:offset].to_i.clamp(0, rows.size)
      page = rows.drop(offset).first((params[:size] || 25).to_i.clamp(1, 100)).map { |row| yield row }
      meta = { results: rows.size, offset: offset }
      return answer(page, root: root) if SHAPE.include?("bare")

      envelope = { meta: meta, root => page }
      answer(SHAPE.include?("without_meta") ? envelope.except(:meta) : envelope, root: "response")
    end

    # As a Rails application renders the errors of a record: field by field, or as the sentences of errors.full_messages.
    def answer_errors(errors)
      sentences = errors.flat_map { |field, faults| faults.map { |fault| "#{field.humanize} #{fault}" } }
      if params[:format] == "xml"
        body = SHAPE.include?("full_messages") ? sentences : errors
        render xml: body.to_xml(root: "errors", skip_types: SHAPE.include?("full_messages")), status: :bad_request
      else
        render json: { errors: SHAPE.include?("full_messages") ? sentences : errors }, status: :bad_request
      end
    end

    def id(number)
      SHAPE.include?("string_ids") ? number.to_s : number
    end
  end

  class CertificatesController < ApiController
    def index
      authorize(API_KEY, other: CERTIFICATIONS_API_KEY)
      answer_page(found, root: "certificates") { |certificate| represent(certificate) }
    rescue Date::Error
      answer_errors("created_from" => ["is not a valid date"])
    end

    def create
      submission = Submission.new(request.request_parameters)
      note(fields: submission.fields, **submission.received)
      judge(submission)
    end

    private

    def judge(submission)
      note(verdict: "not authorized")
      authorize(API_KEY, other: CERTIFICATIONS_API_KEY)
      note(verdict: "too fast")
      raise TooFast if request.env["springest.post"][:too_fast]

      note(verdict: "rejected")
      return answer_errors(submission.errors) if submission.errors.any?

      certificate = MEMORY.store(submission.certificate)
      note(verdict: "stored", id: certificate[:id])
      return head(:created) if SHAPE.include?("without_id")

      answer(represent(certificate), root: "certificate", status: :created)
    end

    def note(facts)
      MEMORY.note(request.env["springest.post"], facts)
    end

    def found
      since = Springest.date(params[:created_from]) if params[:created_from].present?
      MEMORY.certificates.select do |certificate|
        CERTIFICATIONS[certificate[:certification_id]].verified &&
          (params[:email].blank? || params[:email].casecmp?(certificate[:email])) &&
          (params[:certification_id].blank? || params[:certification_id] == certificate[:certification_id].to_s) &&
          (since.nil? || certificate[:created_at].to_date >= since)
      end
    end

    def represent(certificate)
      certification = CERTIFICATIONS[certificate[:certification_id]]
      words = { name: certification.name, description: certification.description }
      {
        id: id(certificate[:id]),
        **(SHAPE.include?("nested") ? {} : words),
        certification_id: id(certification.id),
        **(SHAPE.include?("nested") ? { certification: { id: id(certification.id), **words } } : {}),
        **certificate.slice(:valid_from, :valid_until, :status, :created_at),
        user: { email: certificate[:email], external_id: EXTERNAL_IDS[certificate[:email]] },
      }
    end
  end

  class CertificationsController < ApiController
    def index
      authorize(CERTIFICATIONS_API_KEY, other: API_KEY)
      answer_page(found, root: "certifications") do |certification|
        { **certification.to_h.slice(:id, :name, :description, :requires_valid_until), id: id(certification.id) }
      end
    end

    private

    def found
      CERTIFICATIONS.values.select do |certification|
        certification.verified && (params[:name].blank? || certification.name.downcase.include?(params[:name].downcase))
      end
    end
  end

  class BackstageController < ApiController
    def audit
      render json: MEMORY.audit
    end

    def error
      raise "This is raised on purpose"
    end
  end
end

Rails.application.initialize!
run Rails.application
