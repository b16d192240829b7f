"""Table of the full shop: two-level categories, their kinds of product, attributes, options and prices.

36 categories are those printed in Table 4 of the BOOST paper, whose caption counts 37; the missing one is filled with
`"Grocery & Gourmet Food – Beverages"`, which is ours.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Leaf:
    """One kind of product: the search term it is found by, the rest of its category chain and its names in titles."""

    query: str
    tail: str
    heads: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """A two-level category.

    Args:
        levels (`tuple[str, str]`): as in "level 1 – level 2".
        coarse (`str`): the original's department.
        attributes (`tuple[str, ...]`): what products of this category may have.
        options (`dict[str, tuple[str, ...]]`): option name to possible values.
        price (`tuple[float, float]`): lowest and highest price in dollars.
        uses (`tuple[str, ...]`): title endings.
        leaves (`tuple[Leaf, ...]`): kinds of product.
    """

    levels: tuple[str, str]
    coarse: str
    attributes: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    price: tuple[float, float]
    uses: tuple[str, ...]
    leaves: tuple[Leaf, ...]

    @property
    def label(self) -> str:
        return " – ".join(self.levels)


def _list(text: str, separator: str = ",") -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator))


_VALUES = {
    "color": _list(
        "black, white, grey, navy blue, wine red, army green, beige, brown, light blue, rose gold, dark green, purple,"
        "khaki, burnt orange, yellow, hot pink, silver, teal, multicolor, royal blue, 01-black, a-pink, coffee"
    ),
    "clothes": _list("x-small, small, medium, large, x-large, xx-large, 3x-large, 4x-large, 5x-large"),
    "shoes": _list("5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5 wide, 10, 10.5, 11 wide, 12"),
    "fit": _list("men, women, youth, regular, big & tall"),
    "phone": _list("iphone 13 pro max, iphone 13, iphone 12 mini, iphone 11, galaxy s21, galaxy s20 ultra, pixel 6"),
    "shade": _list(
        "01 ivory, 02 nude, 03 rose, 04 plum, 05 coral, 06 smokey brown, 07 espresso, 08 wine, natural beige"
    ),
    "scent": _list(
        "lavender, coconut, vanilla, unscented, fresh cotton, citrus, tea tree, cherry blossom, sandalwood"
    ),
    "pack": _list("1 count, pack of 2, pack of 3, pack of 4, pack of 6, 12 count, 24 count"),
    "fluid": _list(
        "2 fl oz, 3.4 fl oz, 8 fl oz (pack of 1), 8 fl oz (pack of 2), 12 fl oz, 16 fl oz (pack of 2), 33.8 fl oz"
    ),
    "ounce": _list(
        "1.5 ounce (pack of 12), 4 ounce (pack of 2), 6 ounce, 8 ounce (pack of 1), 12 ounce (pack of 3), 1 pound"
    ),
    "flavor": _list(
        "original, chocolate, sea salt, honey mustard, spicy, variety pack, peanut butter, mixed berry, vanilla"
    ),
    "pieces": _list("1 piece, 2 pieces, 5 pcs, 10 pcs, 14 pcs, 20 piece set"),
    "length": _list("1.5 feet, 3 feet, 6 feet, 10 feet, 15 ft, 25 ft, 50 feet"),
    "inches": _list('16"x24", 20"x30", 24"x36", 30"x40", 36"x48", 50"x60"'),
    "bed": _list("twin, twin xl, full, queen, king, california king"),
    "rug": _list("2 ft x 3 ft, 3 ft x 5 ft, 5 ft x 8 ft, 8 ft x 10 ft, 6 ft round"),
    "memory": _list("8gb | 256gb ssd, 16gb | 512gb ssd, 16gb | 1tb ssd, 32gb | 1tb ssd, 64gb | 2tb ssd"),
    "channel": _list("2.0 channel, 2.1 channel, 3.1 channel, 5.1 channel"),
    "finish": _list(
        "brushed nickel, oil rubbed bronze, matte black, chrome, antique brass, espresso, walnut, white oak"
    ),
    "lights": _list("1 light, 3 lights, 4 lights, 6 lights, 8 lights"),
    "style": _list("basic, with case, with remote, bundle, 2 pack, pro"),
    "toddler": _list("2t, 3t, 4t, small, medium, large, x-large, xx-large"),
    "millimetre": _list("4mm, 6mm, 8mm, 10mm, 15mm"),
    "nails": _list("coffin, almond, short square, french tip, glitter, matte, 01, 02, 03"),
}

# level 1 | level 2 | department | lowest-highest price | options: name=pool, …
#   attributes
#   title endings
#   query > tail > heads (one line for each kind of product)
_TABLE = """
Automotive | Motorcycle & Powersports | fashion | 14-60 | color=color, size=clothes
  touch screen, carbon fiber, water resistant, hard knuckle, full finger, long lasting, high performance, quick release
  for Men Women, for Riding Cycling, Off Road Racing, for Dirt Bike
  motorcycle gloves > Protective Gear > Gloves > Motorcycle Gloves; Riding Gloves; Racing Gloves
  motorcycle masks > Protective Gear > Masks > Balaclava Face Mask; Neck Gaiter; Helmet Liner
Baby Products | Nursery | garden | 60-420 | color=color, style=style
  easy clean, solid wood, lumbar support, high density, easy assemble, white item, storage space, non toxic
  for Baby Room, for Boys Girls, Nursery Decor, for Mothers
  nursery gliders > Furniture > Gliders > Glider Rocker; Nursery Rocking Chair; Swivel Glider Recliner
  changing tables > Furniture > Changing Tables > Changing Table Dresser; Diaper Changing Station; Nursery Dresser
Beauty & Personal Care | Foot, Hand & Nail Care | beauty | 8-45 | color=nails, size=pieces
  long lasting, non toxic, easy apply, cruelty free, nail polish, high quality, easy use, nail art
  for Women Girls, Salon DIY Home, Gift Set, for Beginners
  press on nails > Nail Art > Press On Nails > Press On Nails; Fake Nails; Acrylic Nail Tips
  gel nail polish > Nail Polish > Gel Polish > Gel Nail Polish; Nail Polish Kit; Nail Lacquer
  foot files > Foot Care > Foot Files > Foot File; Callus Remover; Pedicure Rasp
Beauty & Personal Care | Fragrance | beauty | 12-90 | scent name=scent, size=fluid
  long lasting, alcohol free, travel size, high quality, cruelty free, essential oils, natural ingredients
  for Women, for Men, Holiday Gift, Pocket Spray
  women's eau de parfum > Women's > Eau de Parfum > Eau de Parfum Spray; Perfume Spray; Perfume Oil
  men's cologne > Men's > Cologne > Cologne Spray; Eau de Toilette; Body Cologne
Beauty & Personal Care | Hair Care | beauty | 9-48 | size=fluid, scent=scent
  sulfate free, paraben free, tea tree, dry hair, hair growth, damaged hair, natural ingredients, argan oil, cruelty free
  for Curly Hair, for All Hair Types, Daily Moisture, Salon Formula
  shampoo > Shampoo & Conditioner > Shampoos > Shampoo; Scalp Shampoo; Clarifying Shampoo
  hair masks > Hair Treatment > Masks > Hair Mask; Deep Conditioner; Repair Treatment
  hair extensions > Hair Extensions > Clip In > Clip In Hair Extensions; Ponytail Extension; Hair Topper
Beauty & Personal Care | Makeup | beauty | 5-35 | color=shade, size=pieces
  cruelty free, highly pigmented, easy carry, long lasting, fragrance free, oil free, easy apply, sensitive skin
  for Women Girls, Daily Makeup, Gift Set, Professional Quality
  lipstick > Lips > Lipstick > Matte Lipstick; Liquid Lipstick; Lip Stain
  eyeshadow palette > Eyes > Eyeshadow > Eyeshadow Palette; Eye Shadow Stick; Shimmer Palette
  concealer > Face > Concealers > Concealer; Foundation Stick; Contour Cream
Beauty & Personal Care | Oral Care | beauty | 8-110 | color=color, size=pack
  teeth whitening, sensitive teeth, bpa free, easy use, fresh breath, oral hygiene, fluoride free, bad breath
  for Adults Kids, Travel Kit, Dentist Designed, Family Pack
  electric toothbrush > Toothbrushes > Electric > Electric Toothbrush; Sonic Toothbrush; Toothbrush Heads
  teeth whitening kit > Teeth Whitening > Kits > Whitening Strips; Whitening Pen; Whitening Gel Kit
  tongue scraper > Dental Care > Tongue Scrapers > Tongue Scraper; Tongue Cleaner; Dental Floss Picks
Beauty & Personal Care | Personal Care | beauty | 6-38 | scent=scent, size=fluid
  sensitive skin, plant based, dermatologist tested, paraben free, aluminum free, cruelty free, tea tree, dry skin
  for Men Women, Family Size, Daily Care, Travel Friendly
  body wash > Bath & Body > Body Wash > Body Wash; Shower Gel; Bath Foam
  deodorant > Deodorants > Deodorant Sticks > Deodorant Stick; Antiperspirant; Deodorant Cream
  hand soap > Bath & Body > Hand Soap > Hand Soap; Foaming Soap; Bar Soap
Beauty & Personal Care | Shave & Hair Removal | beauty | 10-180 | color=color, style=style
  stainless steel, easy clean, hair removal, high quality, sensitive skin, long lasting, non slip, easy use
  for Men, for Women, Face Legs Underarms, Gift for Dad
  safety razor > Razors > Safety Razors > Safety Razor; Shaving Razor; Double Edge Razor
  hair trimmer > Trimmers > Body Groomers > Hair Trimmer; Beard Trimmer; Body Groomer
  wax warmer > Hair Removal > Waxing > Wax Warmer; Waxing Kit; Wax Beans
Beauty & Personal Care | Skin Care | beauty | 7-60 | size=fluid, scent=scent
  hyaluronic acid, anti aging, fragrance free, dry skin, fine lines, dark circles, clinically proven, vitamin c, oil free
  for Face Neck, Day Night, for All Skin Types, Korean Formula
  face serum > Face > Serums > Face Serum; Facial Ampoule; Brightening Serum
  face moisturizer > Face > Moisturizers > Face Moisturizer; Facial Cream; Night Cream
  eye cream > Eyes > Creams > Eye Cream; Eye Gel; Under Eye Balm
Beauty & Personal Care | Tools & Accessories | beauty | 8-55 | color=color, size=pieces
  synthetic hair, double sided, high quality, easy carry, easy clean, cruelty free, stainless steel, non slip
  for Travel Home, Professional Salon, Gift for Girls, with Storage Bag
  makeup brushes > Makeup Brushes > Brush Sets > Makeup Brush Set; Powder Brush; Blending Brushes
  makeup mirror > Mirrors > Makeup Mirrors > Makeup Mirror; Vanity Mirror; Magnifying Mirror
  cosmetic bag > Bags & Cases > Cosmetic Bags > Cosmetic Bag; Toiletry Bag; Makeup Organizer
Cell Phones & Accessories | Accessories | electronics | 6-40 | color=color, size=phone
  tempered glass, fast charging, easy install, high definition, hands free, wireless charging, anti scratch, case friendly
  with Kickstand, 3 Pack, for Car Home Office, with Alignment Frame
  screen protector > Maintenance > Screen Protectors > Screen Protector; Glass Film; Privacy Screen Protector
  phone chargers > Chargers > Wireless > Wireless Charger; Charging Stand; Charger Block
  phone holder > Stands > Holders > Phone Holder; Phone Mount; Ring Stand
Cell Phones & Accessories | Cases, Holsters & Sleeves | electronics | 8-50 | color=color, size=phone
  wireless charging, heavy duty, dust proof, hands free, tempered glass, easy install, case cover, shock absorption
  for Women Men, Slim Fit Design, with Card Slot, Military Grade
  phone cases > Basic Cases > Phone Case; Protective Case; Bumper Case
  wallet cases > Flip Cases > Wallet Case; Flip Case; Leather Folio Case
Clothing, Shoes & Jewelry | Men | fashion | 12-70 | color=color, size=clothes, fit type=fit
  machine wash, long sleeve, slim fit, button closure, short sleeve, elastic waist, cotton spandex, regular fit, drawstring closure
  Casual Work, Summer Beach, Fashion Streetwear, Business Formal
  men's dress shirts > Clothing > Shirts > Dress Shirt; Button Down Shirt; Oxford Shirt
  men's t-shirts > Clothing > Tops > T-Shirt; Henley Shirt; Crewneck Tee
  men's shorts > Clothing > Shorts > Cargo Shorts; Chino Shorts; Athletic Shorts
  men's sweaters > Clothing > Sweaters > Pullover Sweater; Cardigan Sweater; Turtleneck Sweater
Clothing, Shoes & Jewelry | Novelty & More | fashion | 14-36 | color=color, fit type=fit, size=toddler
  needle sleeve, classic fit, machine wash, heathers cotton, double stitched, cotton heather, polyester heathers
  Funny Gift, Birthday Party, Family Matching, Vintage Retro
  graphic tees > Clothing > Novelty > Graphic T-Shirt; Funny Tee; Vintage Tank Top
  hoodies > Clothing > Novelty > Pullover Hoodie; Graphic Sweatshirt; Zip Hoodie
Clothing, Shoes & Jewelry | Sport Specific Clothing | fashion | 15-60 | color=color, size=clothes
  moisture wicking, quick drying, elastic waistband, stretch fabric, tummy control, high waist, wash cold, nylon spandex
  for Gym Yoga, Running Workout, with Pockets, Hiking Outdoor
  yoga pants > Yoga > Pants > Yoga Pants; Workout Leggings; Capri Leggings
  running shorts > Running > Shorts > Running Shorts; Gym Shorts; Biker Shorts
  ski jackets > Skiing > Jackets > Ski Jacket; Snow Coat; Windbreaker Jacket
Clothing, Shoes & Jewelry | Women | fashion | 18-95 | color=color, size=shoes
  open toe, rubber sole, arch support, non slip, ankle strap, memory foam, high heel, closed toe, ethylene vinyl
  Summer Beach, Wedding Party, Casual Walking, Comfort Wide Width
  women's sandals > Shoes > Sandals > Flat Sandals; Wedge Sandals; Slide Sandal
  women's sneakers > Shoes > Fashion Sneakers > Walking Shoes; Slip On Sneakers; Platform Sneaker
  women's boots > Shoes > Boots > Ankle Boots; Chelsea Boot; Snow Boots
Electronics | Accessories & Supplies | electronics | 5-35 | size=length, color=color
  high speed, gold plated, plug play, heavy duty, aluminum alloy, fast charging, 1080p hd, blu ray
  for TV Laptop, 2 Pack, for Monitor Projector, Male to Male
  hdmi cables > Audio & Video Accessories > Cables > HDMI Cable; Display Cable; Video Adapter Cord
  batteries > Power Accessories > Batteries > Rechargeable Battery; Battery Charger; Power Adapter
  tripods > Camera Accessories > Tripods > Tripod Stand; Selfie Stick; Monopod
Electronics | Camera & Photo | electronics | 20-480 | color=color, style=style
  optical zoom, high resolution, carrying case, easy carry, motion detection, high definition, 1080p hd, quick release
  for Beginners Kids, for Travel Vlogging, with SD Card, Indoor Outdoor
  digital cameras > Digital Cameras > Point & Shoot > Digital Camera; Compact Camera; Vlogging Camera
  photo backdrops > Lighting & Studio > Backgrounds > Photography Backdrop; Photo Background; Studio Backdrop
  security cameras > Video Surveillance > Cameras > Security Camera; Dome Camera; Spy Camera
Electronics | Car & Vehicle Electronics | electronics | 25-320 | style=style, color=color
  hands free, high power, usb port, plug play, high performance, easy install, gps navigation, quad core
  for Truck SUV, with Backup Camera, Universal Fit, with Remote
  car stereo > Car Audio > Receivers > Car Stereo; Car Radio Receiver; Head Unit
  car speakers > Car Audio > Speakers > Car Speakers; Coaxial Speaker; Car Subwoofer
Electronics | Computers & Accessories | electronics | 25-990 | size=memory, color=color
  intel core, solid state, quad core, dual band, usb port, high performance, light weight, core i5
  for Business Students, Windows 11 Pro, Gaming Office, with Webcam
  laptops > Computers & Tablets > Laptops > Laptop Computer; Gaming Laptop; Notebook PC
  desktop computers > Computers & Tablets > Desktops > Desktop Computer; Mini PC; Tower Desktop
  tablets > Computers & Tablets > Tablets > Android Tablet; Tablet PC; Drawing Tablet
Electronics | Home Audio | electronics | 12-460 | color=color, size=channel
  home theater, stereo sound, wall mounted, easy install, wireless bluetooth, high power, remote control, plug play
  for TV Gaming, with Subwoofer, for Living Room, Indoor Outdoor
  soundbars > Speakers > Sound Bars > Soundbar; Sound Bar Speaker; TV Speaker Bar
  turntables > Turntables > Record Players > Record Player; Turntable; Vinyl Player
Electronics | Portable Audio & Video | electronics | 15-340 | color=color, style=style
  noise cancelling, wireless bluetooth, stereo sound, hands free, high definition, easy carry, fast charging, long lasting
  for Running Sports, with Microphone, for Kids Adults, Waterproof
  headphones > Headphones > Over-Ear > Headphones; Gaming Headset; Wireless Headphones
  earbuds > Headphones > Earbud > Earbuds; In-Ear Earphones; True Wireless Earbuds
  portable speakers > Portable Speakers > Bluetooth > Portable Speaker; Bluetooth Speaker; Shower Speaker
Grocery & Gourmet Food | Beverages | grocery | 5-45 | flavor name=flavor, size=pack
  caffeine free, sugar free, usda organic, low calorie, non gmo, artificial colors, gluten free, natural flavors
  Bulk Pack, Breakfast Drink, Keto Friendly, for Hot Cold Brew
  tea bags > Tea > Herbal > Herbal Tea Bags; Green Tea; Iced Tea Mix
  coffee > Coffee > Ground > Ground Coffee; Coffee Pods; Cold Brew Coffee
Grocery & Gourmet Food | Deli & Prepared Foods | grocery | 6-45 | flavor name=flavor, size=ounce
  gluten free, high protein, ready eat, fully cooked, low sodium, artificial ingredients, shelf stable, non gmo
  Snack Meal, Camping Lunch, Family Dinner, Bulk Pack
  beef jerky > Meats > Jerky > Beef Jerky; Turkey Jerky; Meat Sticks
  prepared meals > Prepared Meals > Entrees > Rice Bowl Meal; Pasta Dinner; Lentil Soup
Grocery & Gourmet Food | Frozen | grocery | 4-40 | size=ounce, flavor name=flavor
  gluten free, non gmo, plant based, dairy free, certified organic, high fructose, soy free, quality ingredients
  Family Size, Party Appetizer, Quick Dinner, Dessert Treat
  frozen pizza > Pizza > Frozen Pizza; Cauliflower Crust Pizza; Pizza Snacks
  ice cream > Ice Cream > Ice Cream Pints; Frozen Dessert Bars; Sorbet
Grocery & Gourmet Food | Produce | grocery | 5-48 | flavor name=flavor, size=ounce
  freeze dried, usda organic, gluten free, non gmo, dietary fiber, fat free, low calorie, real fruit
  Healthy Snack, Baking Topping, Resealable Bag, Lunch Box
  dried fruit > Dried Fruits > Dried Fruit; Fruit Crisps; Dried Mango Slices
  dried vegetables > Dried Vegetables > Dried Mushrooms; Vegetable Chips; Dried Beets
Grocery & Gourmet Food | Snacks & Sweets | grocery | 7-60 | flavor name=flavor, size=ounce
  low sugar, individually wrapped, birthday party, gluten free, protein serving, keto friendly, baby shower, resealable bag
  Party Favors, Lunch Snacks, Gift Basket, Movie Night
  cookies > Cookies > Cookies; Shortbread Cookies; Sandwich Cookies
  candy > Candy & Chocolate > Gummy Candy; Chocolate Truffles; Hard Candy
  popcorn > Popcorn > Popcorn Bags; Kettle Corn; Caramel Popcorn
Home & Kitchen | Bedding | garden | 18-150 | color=color, size=bed
  super soft, machine washable, queen size, king size, easy clean, twin size, high density, exquisite workmanship
  for All Season, with Pillow Shams, Hotel Luxury, for Kids Adults
  duvet covers > Duvet Covers & Sets > Duvet Cover Set; Comforter Set; Quilt Set
  throw blankets > Blankets & Throws > Throw Blanket; Fleece Blanket; Weighted Blanket
  bed pillows > Pillows > Bed Pillows; Memory Foam Pillow; Body Pillow
Home & Kitchen | Furniture | garden | 40-480 | color=finish, style=style
  solid wood, nickel finish, fully assembled, storage space, mid century, contemporary design, easy assemble, metal legs
  for Living Room, for Bedroom Office, with Drawers, Modern Farmhouse
  nightstands > Bedroom Furniture > Nightstands > Nightstand; Bedside Table; End Table
  sofas > Living Room Furniture > Sofas > Loveseat Sofa; Sectional Couch; Futon Sofa Bed
  bar stools > Dining Furniture > Stools > Bar Stools; Counter Stool; Kitchen Stools
Home & Kitchen | Home Décor Products | garden | 15-260 | color=color, size=rug
  living room, stain resistant, easy clean, dining room, machine washable, super soft, spot clean, home decor
  for Bedroom Hallway, Boho Farmhouse, Indoor Outdoor, Non Shedding
  area rugs > Area Rugs, Runners & Pads > Area Rug; Runner Rug; Shag Carpet
  curtains > Window Treatments > Curtains > Blackout Curtains; Window Drapes; Sheer Curtain Panels
  candles > Candles & Holders > Candles > Scented Candle; Soy Candle Jar; Pillar Candles
Home & Kitchen | Kitchen & Dining | garden | 6-80 | color=color, size=pieces
  bpa free, dishwasher safe, stainless steel, birthday party, easy clean, non stick, lead free, heat resistant
  for Home Restaurant, Gift Set, with Lids, Dinner Party
  water bottles > Storage > Bottles > Water Bottle; Insulated Tumbler; Sports Bottle
  cookware > Cookware > Pans > Frying Pan; Cookware Set; Saucepan
  cake toppers > Bakeware > Decorating > Cake Topper; Cupcake Toppers; Cake Decorations
Home & Kitchen | Wall Art | garden | 12-140 | color=color, size=inches
  ready hang, dining room, wood frame, living room, easy install, hand painted, printing technology, solid wood
  for Bedroom Bathroom, Modern Abstract, Farmhouse Decor, Set of 3
  canvas wall art > Posters & Prints > Canvas > Canvas Wall Art; Canvas Print; Framed Artwork
  wall mirrors > Mirrors > Wall-Mounted > Wall Mirror; Round Mirror; Bathroom Mirror
Office Products | Office & School Supplies | garden | 5-40 | color=color, size=pack
  heavy duty, non slip, easy use, water resistant, high capacity, eco friendly, quick drying, long lasting
  for Students Teachers, Back to School, Desk Organizer, Office Meeting
  desk mats > Desk Accessories > Mats > Desk Pad; Mouse Pad; Writing Mat
  notebooks > Paper > Notebooks > Spiral Notebook; Journal Notebook; Planner Book
Office Products | Office Furniture & Lighting | garden | 30-420 | color=color, style=style
  lumbar support, height adjustable, pu leather, easy assemble, heavy duty, steel frame, high density, storage space
  for Home Office, with Armrest, Ergonomic Design, for Adults Teens
  office chairs > Chairs & Sofas > Chairs > Office Chair; Desk Chair; Task Chair
  computer desks > Desks & Workstations > Desks > Computer Desk; Standing Desk; Writing Table
Sports & Outdoors | Sports | garden | 10-120 | color=color, size=millimetre
  eco friendly, non slip, easy carry, high density, water resistant, light weight, easy clean, heavy duty
  for Home Gym, with Carrying Strap, for Women Men, Outdoor Camping
  yoga mats > Exercise & Fitness > Yoga > Yoga Mat; Exercise Mat; Pilates Mat
  resistance bands > Exercise & Fitness > Bands > Resistance Bands; Exercise Bands; Loop Band Set
Tools & Home Improvement | Lighting & Ceiling Fans | garden | 25-600 | color=finish, size=lights
  pendant light, brushed nickel, clear glass, easy install, glass shade, living room, dining room, bronze finish
  for Kitchen Island, Modern Industrial, Farmhouse Rustic, with Remote Control
  chandeliers > Ceiling Lights > Chandeliers > Chandelier; Hanging Light Fixture; Pendant Chandelier
  wall sconces > Wall Lights > Sconces > Wall Sconce; Vanity Light; Wall Lamp
  ceiling fans > Ceiling Fans > Ceiling Fan; Flush Mount Fan; Fan with Light
"""


def _parse(table: str) -> tuple[Category, ...]:
    blocks: list[list[str]] = []
    for line in table.strip().splitlines():
        if line.startswith(" "):
            blocks[-1].append(line.strip())
        else:
            blocks.append([line])
    categories = []
    for head, attributes, uses, *kinds in blocks:
        level1, level2, coarse, price, options = _list(head, "|")
        low, high = price.split("-")
        names = (option.split("=") for option in _list(options))
        leaves = []
        for kind in kinds:
            query, *tail, heads = _list(kind, ">")
            leaves.append(Leaf(query, " › ".join(tail), _list(heads, ";")))
        categories.append(
            Category(
                levels=(level1, level2),
                coarse=coarse,
                attributes=_list(attributes),
                options={name: _VALUES[pool] for name, pool in names},
                price=(float(low), float(high)),
                uses=_list(uses),
                leaves=tuple(leaves),
            )
        )
    return tuple(categories)


CATEGORIES = _parse(_TABLE)
